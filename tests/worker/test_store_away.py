"""While the place of the bundles does not answer, no slate is explained by another version than its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from schemas.columnar import from_records, to_records
from stream.agents.bundle_store import BundleStore
from stream.agents.live import LiveExplainers
from stream.archive.objects import MemoryStore, StoreUnavailable
from stream.explain.pipeline import Explainer
from stream.kafka.control import Serving
from stream.metrics import Metrics
from tests.bundles import tiny_bundle, tiny_impression


class Away(MemoryStore):
    """A store that does not answer while ``is_away``."""

    is_away = False

    def get(self, key: str) -> bytes:
        if self.is_away:
            raise StoreUnavailable(f"{key}: no answer; the request may be repeated")
        return super().get(key)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [Bundle.load(tiny_bundle(folder / n, version=n, seed=int(n))) for n in ("1", "2", "3")]


@pytest.fixture
def store(bundles: list[Bundle]) -> Away:
    found = Away()
    for bundle in bundles:
        for path in bundle.path.iterdir():
            found.put_if_absent(f"{bundle.model_version}/{path.name}", path.read_bytes())
    return found


@pytest.fixture
def live(bundles: list[Bundle], store: Away, tmp_path: Path) -> LiveExplainers:
    place = BundleStore(store, tmp_path)
    return LiveExplainers(bundles[0], Explainer, place, Metrics(), max_bundles=3, max_bytes=2**40, idle_s=60.0)


def explained(live: LiveExplainers, *bundles: Bundle) -> list[dict[str, Any]]:
    slates = [tiny_impression(bundle, items=5) for bundle in bundles]
    return to_records("explanation", live.run(from_records("impression", slates)).explanations)


def test_a_slate_waits_for_its_version_and_is_explained_as_soon_as_the_store_answers(
    live: LiveExplainers, store: Away, bundles: list[Bundle]
) -> None:
    store.is_away = True
    with pytest.raises(StoreUnavailable, match="tiny@2"):
        explained(live, bundles[0], bundles[1])
    assert [each["model_version"] for each in explained(live, bundles[0])] == ["tiny@1"]  # in memory
    store.is_away = False
    found = explained(live, bundles[0], bundles[1])
    assert [each["model_version"] for each in found] == ["tiny@1", "tiny@2"]
    assert {item["mismatch"] for each in found for item in each["items"]} == {None}


def test_a_promotion_that_cannot_be_fetched_now_is_an_error_and_not_a_refusal(
    live: LiveExplainers, store: Away
) -> None:
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        live.follow({"tiny": Serving("2", shares={"3": 0.5})})
    store.is_away = False
    live.follow({})
    assert set(live.versions) == {"tiny@1", "tiny@2", "tiny@3"}
