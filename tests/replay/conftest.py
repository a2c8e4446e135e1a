"""An archive that a real worker wrote from impressions on a real Kafka, and the command that replays out of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.bundle import Bundle
from schemas.codec import Codec
from stream.archive.reading import reader
from stream.archive.rows import segment
from stream.archive.store import open_store
from stream.cli import app
from stream.settings import Settings
from tests.bundles import tiny_impression
from tests.parts.fixtures import ExistingKafka
from tests.parts.kafka import Kafka
from tests.worker.bus import Bus, kafka_bus
from tests.worker.conftest import bundle, bundle_dir
from tests.worker.running import running, until_archived

__all__ = ["bundle", "bundle_dir"]

SLATES = 5


@dataclass(frozen=True)
class Explained:
    """What was sent, and what it takes to replay it."""

    bus: Bus
    impressions: list[dict[str, Any]]

    @property
    def settings(self) -> Settings:
        return self.bus.settings

    def replay(self, number: int, *arguments: str, **changes: str) -> Result:
        """Run the command for one of the impressions; changes are settings."""
        given = {
            "WHYREC_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "WHYREC_BUNDLE_DIR": str(self.settings.bundle_dir),
            "WHYREC_ARCHIVE_URL": self.settings.archive_url,
            "WHYREC_IMPRESSIONS_TOPIC": self.settings.topic("impressions"),
            "COLUMNS": "200",
            **{f"WHYREC_{name.upper()}": value for name, value in changes.items()},
        }
        request = self.impressions[number]["request_id"]
        return CliRunner().invoke(app, ["replay", "--request", request, *arguments], env=given)

    def tampered(self, to: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], number: int) -> str:
        """Copy the archive, change the rows of one impression, and return where the copy lies."""
        shutil.copytree(self.settings.archive_url, to)
        request = self.impressions[number]["request_id"]
        for ref in reader.objects(open_store(str(to))):
            table = segment.read((to / ref.key).read_bytes())
            rows = table.to_pylist()
            here = [row for row in rows if str(row["request_id"]) == request]
            if here:
                others = [row for row in rows if str(row["request_id"]) != request]
                changed = pa.Table.from_pylist(others + change(here), schema=table.schema)
                (to / ref.key).write_bytes(segment.write(changed))
        return str(to)


@pytest.fixture(scope="module")
def explained(
    kafka: Kafka | ExistingKafka, bundle: Bundle, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Explained]:
    folder = tmp_path_factory.mktemp("replay")
    settings = Settings(bundle_dir=bundle_dir, archive_url=str(folder / "archive"))
    with kafka_bus(settings, kafka.bootstrap) as bus:
        slates = [tiny_impression(bundle, session=6 + 9 * number, items=5, seed=number) for number in range(SLATES)]
        topic, codec = bus.settings.topic("impressions"), Codec()
        encoded = [codec.encode("impression", {"detail": False, **slate}, topic) for slate in slates]
        bus.send_all([(each.value, each.headers) for each in encoded])
        with running(bus.settings, folder / "log"):
            until_archived(bus.settings, SLATES * 5)
        yield Explained(bus, slates)
