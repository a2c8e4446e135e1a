"""``whyrec produce``: impressions at a steady rate, of simulated users or of real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from stream.load import Totals

_DEFAULT_COUNT = 1000
_ANSWER_S = 5.0


def produce(
    *,
    simulated: Annotated[bool, typer.Option("--simulated", help="Users of the StreamRec simulator.")] = False,
    movielens: Annotated[
        Path | None, typer.Option(help="Real users: a folder with MovieLens 100K.", metavar="DIR")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="The model bundle that ranks, by default WHYREC_BUNDLE_DIR.", metavar="DIR")
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Brokers, by default WHYREC_BOOTSTRAP_SERVERS.", metavar="HOST:PORT")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Slates per second, sent on time whatever happens.")] = 50.0,
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Slates to send, {_DEFAULT_COUNT} without --duration.", metavar="N")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds to send for.", metavar="S")] = None,
    slate_size: Annotated[int, typer.Option(min=1, max=500, help="Items per slate.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other users and request ids.")] = 1,
) -> None:
    """Send impression events: slates that the bundle's own models rank for users whose next event is held back.

    Exit 1 if an event was not acknowledged by the broker.

    Example: whyrec produce --simulated --rate 200 --duration 60
    """
    from rich.console import Console

    from models.bundle import Bundle
    from stream import load
    from stream.connections import codec_of
    from stream.errors import ConfigurationError, DeliveryError
    from stream.kafka.delivery import Delivery
    from stream.settings import Settings

    if simulated == (movielens is not None):
        raise ConfigurationError("produce needs one source: --simulated, or --movielens DIR")
    settings = Settings()
    if bootstrap is not None:
        settings = settings.model_copy(update={"bootstrap_servers": bootstrap})
    topic = settings.topic("impressions")
    if count is None and duration is None:
        count = _DEFAULT_COUNT
    expected = load.limit_of(rate, count, duration)
    console = Console()

    opened = Bundle.load(bundle or settings.bundle_dir)
    slates = (
        load.movielens(opened, movielens, items=slate_size, seed=seed)
        if movielens is not None
        else load.simulated(opened, items=slate_size, seed=seed)
    )
    _require_topic(settings.bootstrap_servers, topic)
    codec = codec_of(settings)
    ahead = load.Ahead(slates)
    delivery = Delivery(settings.bootstrap_servers, timeout_s=settings.delivery_timeout_s)
    try:
        with console.status("models load, slates are made ahead"):
            ahead.fill(expected)
        with _progress(console) as progress:
            task = progress.add_task("", total=expected, sent=0, delivered=0)

            def report(totals: Totals) -> None:
                progress.update(task, completed=totals.sent, sent=totals.sent, delivered=totals.delivered)

            totals = load.send(
                ahead, delivery, codec, topic, rate=rate, count=count, duration_s=duration, report=report
            )
    finally:
        ahead.close()
        delivery.close(settings.delivery_timeout_s)
    missing = totals.sent - totals.delivered
    console.print(
        f"sent {totals.sent:,} slates ({totals.items:,} items) to {topic} in {totals.seconds:.1f} s, "
        f"{totals.sent / max(totals.seconds, 1e-9):.1f} per second; delivered {totals.delivered:,}",
        highlight=False,
        soft_wrap=True,
    )
    if totals.late_s > 1.0:
        console.print(
            f"[yellow]up to {totals.late_s:.1f} s behind time:[/] this machine makes slates more slowly than "
            f"{rate:g} per second; lower --rate, or start several with different --seed",
            highlight=False,
            soft_wrap=True,
        )
    if missing:
        raise DeliveryError(
            f"{missing:,} of {totals.sent:,} slates were not acknowledged ({totals.error or 'no answer in time'}): "
            f"check the brokers at {settings.bootstrap_servers}, and raise WHYREC_DELIVERY_TIMEOUT_S if they are slow"
        )


def _require_topic(bootstrap_servers: str, topic: str) -> None:
    """Ask the brokers for the topic before anything is made for it.

    Raises:
        ConfigurationError: no broker answers, or the topic is missing.

    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from stream.errors import ConfigurationError

    client = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        # Asked for by name, since the embedded broker makes a topic when it is first asked for.
        found = client.list_topics(topic, timeout=_ANSWER_S).topics.get(topic)
    except KafkaException as error:
        raise ConfigurationError(
            f"no broker answers at {bootstrap_servers} ({error.args[0].str()}): start one, or name another with "
            "--bootstrap HOST:PORT"
        ) from error
    if found is None or found.error is not None:
        raise ConfigurationError(
            f"the topic {topic} is missing at {bootstrap_servers}; create it with: whyrec topics create"
        )


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        BarColumn(),
        TextColumn("{task.fields[sent]:,} sent, {task.fields[delivered]:,} delivered"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
