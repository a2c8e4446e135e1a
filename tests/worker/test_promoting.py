"""``whyrec models promote`` refuses a version that no worker could load, before any worker hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from schemas.errors import WhyrecError
from stream.commands.models import app
from stream.kafka.control import ControlTopic, Serving
from stream.kafka.embedded import EmbeddedBroker
from stream.settings import Settings
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2; version 3, damaged; and version 4, whose manifest is not there yet."""
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("2", "3", "4"):
        tiny_bundle(folder / f"tiny@{version}", version=version)
    (folder / "tiny@3" / "session.onnx").write_bytes(b"cut")
    (folder / "tiny@4" / "manifest.json").unlink()
    return folder


@pytest.fixture
def promote(bundles: Path, settings: Settings) -> Callable[[str], tuple[Result, dict[str, Serving]]]:
    """Promote a version on a broker of its own; return what came of it, and what the control topic says then."""

    def promoted(version: str) -> tuple[Result, dict[str, Serving]]:
        with EmbeddedBroker([settings.control_topic]) as broker:
            environment = {
                "WHYREC_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
                "WHYREC_BUNDLES_URL": str(bundles),
                "WHYREC_BUNDLE_DIR": str(settings.bundle_dir),
            }
            result = CliRunner().invoke(app, ["promote", version], env=environment)
            control = ControlTopic(settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers}))
            try:
                return result, control.current()
            finally:
                control.close()

    return promoted


@pytest.mark.parametrize("number", ["1", "2"])  # version 1 is the worker's own bundle
def test_a_version_whose_bundle_opens_is_promoted(
    promote: Callable[[str], tuple[Result, dict[str, Serving]]], number: str
) -> None:
    result, said = promote(f"tiny@{number}")
    assert result.exit_code == 0, (result.output, result.exception)
    assert said == {"tiny": Serving(number)}


@pytest.mark.parametrize(
    ("version", "reason"),
    [("tiny@3", "session.onnx"), ("tiny@4", "no bundle tiny@4"), ("tiny@9", "no bundle tiny@9")],
)
def test_a_version_that_no_worker_could_load_is_refused(
    promote: Callable[[str], tuple[Result, dict[str, Serving]]], version: str, reason: str
) -> None:
    result, said = promote(version)
    assert isinstance(result.exception, WhyrecError)
    assert reason in str(result.exception)
    assert said == {}
