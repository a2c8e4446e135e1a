"""``whyrec bench``: what everything costs, each figure beside something to compare it with, in one run."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec

import typer

app = typer.Typer()

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _run(context: typer.Context, name: str) -> None:
    from stream.errors import ConfigurationError

    module = f"bench.{name}"
    if find_spec(module) is None:
        raise ConfigurationError(f"{module} is not installed here; run this in a checkout of whyrec")
    sys.argv = [f"whyrec bench {name}", *context.args]
    try:
        runpy.run_module(module, run_name="__main__")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this benchmark compares with {error.name}, which is not installed: python -m pip install 'whyrec[bench]'"
        ) from error


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def treeshap(context: typer.Context) -> None:
    """Measure exact TreeSHAP beside LightGBM's own contributions.

    Example: whyrec bench treeshap --json treeshap.json
    """
    _run(context, "treeshap")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def session(context: typer.Context) -> None:
    """Measure the session model with every event left out, beside one plain forward pass.

    Example: whyrec bench session --json session.json
    """
    _run(context, "session")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def pipeline(context: typer.Context) -> None:
    """Measure explaining without Kafka, beside the same parts put together plainly.

    Example: whyrec bench pipeline --batch 64
    """
    _run(context, "pipeline")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def stream(context: typer.Context) -> None:
    """Run a worker end to end on a real Kafka: sustained rate, latencies, CPU and memory by process.

    Example: whyrec bench stream --rate 50 150 --duration 30 --flame worker.svg
    """
    _run(context, "stream")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def growth(context: typer.Context) -> None:
    """Measure how cost grows with slates, sessions, trees, batches, partitions and workers, and draw it.

    Example: whyrec bench growth --plot growth.svg
    """
    _run(context, "growth")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def produce(context: typer.Context) -> None:
    """Measure what each setting of the Kafka producer comes to: time until acknowledged, CPU, bytes.

    Example: whyrec bench produce --rate 500
    """
    _run(context, "produce")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def archive(context: typer.Context) -> None:
    """Measure bytes per archived impression, and how fast the sink takes them in.

    Example: whyrec bench archive --slates 2000
    """
    _run(context, "archive")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def pull(context: typer.Context) -> None:
    """Pull one user's rows out of the archive, and say what that read.

    Example: whyrec bench pull --json pull.json
    """
    _run(context, "pull")


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def peers(context: typer.Context) -> None:
    """Do the same job with a bare consumer and on another framework: what the transport costs.

    Example: whyrec bench peers --rate 100 --duration 20
    """
    _run(context, "peers")
