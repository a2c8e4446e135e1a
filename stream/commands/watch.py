"""``whyrec watch``: explanations as they arrive on the topic, as a frontend would read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from schemas.events import Explanation
    from stream.settings import Settings


def watch(
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.", metavar="N")] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Of each slate show the first so many items.", metavar="N")
    ] = None,
    from_beginning: bool = typer.Option(False, help="Begin with the oldest event on the topic, not with the next."),
    json: bool = typer.Option(False, "--json", help="Print each event as a line of JSON."),
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="The bundle whose catalogue has the titles of the items, by default WHYREC_BUNDLE_DIR.", metavar="DIR"
        ),
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
    from stream.connections import codec_of
    from stream.errors import ConfigurationError
    from stream.kafka.reading import TopicReader

    codec, topic = codec_of(settings), settings.topic("explanations")
    with TopicReader(settings, "watch") as reader:
        if not reader.partitions(topic):
            raise ConfigurationError(f"there is no topic {topic}: whyrec topics create makes it")
        (reader.begin_at_starts if from_beginning else reader.begin_at_ends)(topic)
        for message in reader.messages():
            yield cast("Explanation", codec.decode("explanation", message.value(), message.headers()))
