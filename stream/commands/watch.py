"""``whyrec watch``: explanations as they arrive on the topic, as a frontend would read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

if TYPE_CHECKING:
    from schemas.events import Explanation
    from stream.settings import Settings

_TIMEOUT_S: Final = 10.0


def watch(
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.", metavar="N")] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Of each slate show the first so many items.", metavar="N")
    ] = None,
    from_beginning: bool = typer.Option(False, help="Begin with the oldest event the topic holds, not with the next."),
    json: bool = typer.Option(False, "--json", help="Print each event as a line of JSON."),
    bundle: Annotated[
        Path | None,
        typer.Option(help="Its catalogue has the titles of the items, by default WHYREC_BUNDLE_DIR.", metavar="DIR"),
    ] = None,
) -> None:
    """Print explanation events as they arrive, until Ctrl-C.

    Example: whyrec watch --from-beginning --count 3 --items 5
    """
    from rich.console import Console

    from models.bundle import Bundle
    from schemas.json_form import to_json
    from stream.settings import Settings
    from stream.terminal.panel import panel

    settings = Settings()
    opened = Bundle.load(bundle or settings.bundle_dir)
    console = Console()
    for number, explanation in enumerate(_explanations(settings, from_beginning=from_beginning), start=1):
        if json:
            typer.echo(to_json(explanation))
        else:
            console.print(panel(explanation, opened, items))
        if number == count:
            return


def _explanations(settings: Settings, *, from_beginning: bool) -> Iterator[Explanation]:
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

    from stream.connections import codec_of
    from stream.errors import ConfigurationError

    codec, topic = codec_of(settings), settings.topic("explanations")
    # No group: whoever watches takes nothing away from the consumers there are, and commits nothing.
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "whyrec-watch", "log_level": 0})
    try:
        found: dict[int, Any] = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
        if not found:
            raise ConfigurationError(f"there is no topic {topic}: whyrec topics create makes it")
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        consumer.assign([TopicPartition(topic, number, start) for number in found])
        while True:
            for message in consumer.consume(100, timeout=0.2):
                if message.error() is None:
                    yield cast("Explanation", codec.decode("explanation", message.value(), message.headers()))
    except KafkaException as error:
        raise ConfigurationError(
            f"no broker answers at {settings.bootstrap_servers} ({error.args[0].str()}); check WHYREC_BOOTSTRAP_SERVERS"
        ) from error
    finally:
        consumer.close()
