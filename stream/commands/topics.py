"""``whyrec topics``: the topics on the brokers."""

from __future__ import annotations

import typer

from stream.settings import Settings

app = typer.Typer()

Bootstrap = typer.Option(None, "--bootstrap", help="Brokers, by default WHYREC_BOOTSTRAP_SERVERS.", metavar="HOST:PORT")


@app.command()
def create(
    bootstrap: str | None = Bootstrap,
    partitions: int | None = typer.Option(None, min=1, help="By default WHYREC_PARTITIONS."),
    replication_factor: int | None = typer.Option(None, min=1, help="By default WHYREC_REPLICATION_FACTOR."),
    min_insync_replicas: int | None = typer.Option(None, min=1, help="By default one less than the replicas."),
) -> None:
    """Create the topics that are missing; existing topics stay unchanged.

    Example: whyrec topics create --bootstrap 127.0.0.1:9092 --partitions 12
    """
    from stream.kafka.cluster import Cluster

    settings = _settings(bootstrap, partitions=partitions, replication_factor=replication_factor)
    created = Cluster(settings).create(min_insync_replicas=min_insync_replicas)
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("all topics exist")


@app.command()
def describe(bootstrap: str | None = Bootstrap) -> None:
    """Show the topics on the brokers; exit 1 if one is missing or does not fit.

    Example: whyrec topics describe --bootstrap 127.0.0.1:9092
    """
    from rich.console import Console
    from rich.table import Table

    from stream.kafka.cluster import Cluster
    from stream.kafka.topics import TOPICS

    settings = _settings(bootstrap)
    cluster = Cluster(settings)
    states = cluster.describe()
    table = Table(title=f"At {settings.bootstrap_servers}")
    table.add_column("topic", overflow="fold")
    for name in ("partitions", "replicas", "min ISR", "retention"):
        table.add_column(name, no_wrap=True)
    for role in TOPICS:
        state = states.get(role)
        if state is None:
            table.add_row(settings.topic(role), "[red]missing[/]", "", "", "")
            continue
        table.add_row(
            state.name,
            str(state.partitions),
            str(state.replicas),
            state.settings.get("min.insync.replicas", "?"),
            _retention(state.settings),
        )
    Console().print(table)
    cluster.require()


def _retention(settings: dict[str, str]) -> str:
    from stream.kafka.topics import DAY_MS

    if settings.get("cleanup.policy") == "compact":
        return "latest by key"
    retention_ms = int(settings.get("retention.ms", -1))
    return f"{retention_ms / DAY_MS:g} days" if retention_ms >= 0 else "?"


def _settings(bootstrap: str | None, **given: int | None) -> Settings:
    values: dict[str, str | int] = {name: value for name, value in given.items() if value is not None}
    if bootstrap is not None:
        values["bootstrap_servers"] = bootstrap
    return Settings().model_copy(update=values)
