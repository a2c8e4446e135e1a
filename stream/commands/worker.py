"""``whyrec worker``: explain impressions as they arrive, and archive the audit records."""

from __future__ import annotations

import typer

from stream.settings import Settings


def worker(
    agents: str = typer.Option("explain,sink", help="Which agents to run: explain, sink, or both."),
    bootstrap: str | None = typer.Option(
        None, "--bootstrap", help="Brokers, by default WHYREC_BOOTSTRAP_SERVERS.", metavar="HOST:PORT"
    ),
    until_idle: float | None = typer.Option(
        None, min=1, help="End as on SIGTERM after so many idle seconds.", metavar="SECONDS"
    ),
) -> None:
    """Run a worker until SIGTERM or SIGINT; it finishes what is in flight. Start more workers to scale.

    Example: WHYREC_ARCHIVE_URL=s3://my-bucket/archive whyrec worker --bootstrap kafka-1:9092,kafka-2:9092
    """
    from stream.errors import ConfigurationError
    from stream.service import AGENTS, run

    chosen = [name.strip() for name in agents.split(",") if name.strip()]
    unknown = sorted(set(chosen) - AGENTS.keys())
    if unknown or not chosen:
        raise ConfigurationError(f"--agents takes {' and '.join(AGENTS)}, separated by a comma; got {agents!r}")
    settings = Settings()
    if bootstrap is not None:
        settings = settings.model_copy(update={"bootstrap_servers": bootstrap})
    raise typer.Exit(run(settings, chosen, until_idle))
