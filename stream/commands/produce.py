"""``whyrec produce``: impressions at a steady rate, of simulated or real users."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.sources import ImpressionsFrom, Strict, impressions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress

    from models.bundle import Bundle
    from schemas.events import Impression
    from stream.kafka.load import Totals
    from stream.settings import Settings

_DEFAULT_COUNT = 1000


def produce(
    *,
    simulated: Annotated[bool, typer.Option("--simulated", help="Users of the StreamRec simulator.")] = False,
    movielens: Annotated[
        Path | None, typer.Option(help="Real users: a folder with MovieLens 100K.", metavar="DIR")
    ] = None,
    impressions: ImpressionsFrom = None,
    strict: Strict = False,
    bundle: Annotated[
        Path | None, typer.Option(help="The model bundle that ranks, by default WHYREC_BUNDLE_DIR.", metavar="DIR")
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Brokers, by default WHYREC_BOOTSTRAP_SERVERS.", metavar="HOST:PORT")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.001, help="Slates per second, sent on time even if the broker is slow.")
    ] = 50.0,
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Slates to send, {_DEFAULT_COUNT} without --duration.", metavar="N")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds to send for.", metavar="S")] = None,
    slate_size: Annotated[int, typer.Option(min=1, max=500, help="Items per slate.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other users and request ids.")] = 1,
) -> None:
    """Send impression events: slates that the models of the bundle rank for users whose next event is held out.

    Impressions of a recommender are sent as they are, each once, but for their times, which are those of sending.

    Exit 1 if an event was not acknowledged by the broker.

    Example: whyrec produce --simulated --rate 200 --duration 60
    """
    from rich.console import Console

    from models.bundle import Bundle
    from stream.connections import codec_of
    from stream.errors import DeliveryError
    from stream.kafka import load
    from stream.kafka.delivery import Delivery
    from stream.settings import Settings

    settings = Settings()
    if bootstrap is not None:
        settings = settings.model_copy(update={"bootstrap_servers": bootstrap})
    topic = settings.topic("impressions")
    source = _Source(simulated, movielens, impressions, strict, slate_size, seed)
    served = source.served(count)
    count = count if served is None else len(served)
    if count is None and duration is None:
        count = _DEFAULT_COUNT
    expected = load.limit_of(rate, count, duration)
    console = Console()

    opened = Bundle.load(bundle or settings.bundle_dir)
    slates = source.ranked(opened) if served is None else iter(served)
    _require_topic(settings, topic)  # before any slate is made
    codec = codec_of(settings)
    ahead = load.Ahead(slates)
    delivery = Delivery(settings)
    try:
        with console.status("loading models and making slates ahead of time"):
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


@dataclass(frozen=True)
class _Source:
    """Where slates come from: one of simulated users, MovieLens, and impressions that were served."""

    simulated: bool
    movielens: Path | None
    impressions: str | None
    strict: bool
    slate_size: int
    seed: int

    def served(self, count: int | None) -> list[Impression] | None:
        """Return the impressions that are to be sent as they are; None if slates are to be ranked.

        Raises:
            ConfigurationError: there is not exactly one source, or it holds no impressions.

        """
        from stream.errors import ConfigurationError

        if [self.simulated, self.movielens is not None, self.impressions is not None].count(True) != 1:
            raise ConfigurationError("produce needs one source: --simulated, --movielens DIR, or --impressions FILE")
        if self.impressions is None:
            return None
        served = impressions_of(self.impressions, count, strict=self.strict)
        if not served:
            raise ConfigurationError(f"{self.impressions} holds no impressions; name a source that does")
        return served

    def ranked(self, bundle: Bundle) -> Iterator[Impression]:
        """Rank slates with a bundle."""
        from stream.kafka import load

        if self.movielens is not None:
            return load.movielens(bundle, self.movielens, items=self.slate_size, seed=self.seed)
        return load.simulated(bundle, items=self.slate_size, seed=self.seed)


def _require_topic(settings: Settings, topic: str) -> None:
    """Check that the topic exists; the embedded broker creates a topic when somebody asks for its name.

    Raises:
        ConfigurationError: no broker answers, or the topic is missing.

    """
    from stream.errors import ConfigurationError
    from stream.kafka.reading import TopicReader

    try:
        with TopicReader(settings, "produce") as reader:
            exists = bool(reader.partitions(topic))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or name another broker with --bootstrap HOST:PORT") from error
    if not exists:
        raise ConfigurationError(
            f"the topic {topic} is missing at {settings.bootstrap_servers}; create it with: whyrec topics create"
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
