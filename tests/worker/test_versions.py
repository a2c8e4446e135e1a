"""Several versions of a model serve at once: each slate is explained by the version that ranked it."""

from __future__ import annotations

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from models.bundle import Bundle
from models.errors import BundleError
from schemas.codec import Codec
from schemas.columnar import from_records, to_records
from schemas.errors import WhyrecError
from stream.agents.bundle_store import BundleStore
from stream.agents.live import LiveExplainers
from stream.archive.objects import MemoryStore
from stream.archive.store import open_store
from stream.cli import app as cli
from stream.commands.models import app
from stream.errors import ConfigurationError, DeliveryError
from stream.explain.pipeline import Explainer
from stream.kafka.control import ControlTopic, Serving, publish
from stream.metrics import Metrics
from stream.settings import Settings
from tests.bundles import tiny_bundle, tiny_impression
from tests.worker.bus import Bus, kafka_bus
from tests.worker.running import archived, running, until_archived

ITEMS = 5


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three versions with different weights, and one that is broken."""
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("1", "2", "3"):
        tiny_bundle(folder / f"tiny@{version}", version=version, seed=int(version))
    shutil.copytree(folder / "tiny@3", folder / "tiny@4")
    (folder / "tiny@4" / "session.onnx").write_bytes(b"cut")
    return folder


@pytest.fixture(scope="module")
def served(bundles: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for version in ("1", "2", "3"):
        bundle = Bundle.load(bundles / f"tiny@{version}")
        found[version] = [tiny_impression(bundle, items=ITEMS, seed=seed) for seed in range(12)]
    return found


def live_of(bundles: Path, copies: Path, **changes: Any) -> LiveExplainers:
    own = Bundle.load(bundles / "tiny@1")
    options: dict[str, Any] = {"max_bundles": 3, "max_bytes": 2**40, "idle_s": 60.0, "metrics": Metrics()} | changes
    return LiveExplainers(
        own, options.pop("open_explainer", Explainer), BundleStore(open_store(str(bundles)), copies), **options
    )


def explained(live: LiveExplainers, impressions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = live.run(from_records("impression", impressions))
    assert not found.rejected
    return to_records("explanation", found.explanations)


def test_a_mixed_batch_is_explained_by_the_version_of_each_slate_in_order(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    mixed = [slate for three in zip(*served.values(), strict=True) for slate in three]
    found = explained(live_of(bundles, tmp_path), mixed)
    assert [each["request_id"] for each in found] == [each["request_id"] for each in mixed]
    assert [each["model_version"] for each in found] == [each["model_version"] for each in mixed]
    assert {item["status"] for each in found for item in each["items"]} >= {"verified"}
    assert "model_mismatch" not in {item["status"] for each in found for item in each["items"]}


def test_a_version_that_cannot_be_had_is_a_mismatch_and_the_others_go_on(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    live = live_of(bundles, tmp_path)
    slates = [served["1"][0], served["2"][0] | {"model_version": "tiny@4"}, served["3"][0] | {"model_version": "no@1"}]
    found = explained(live, slates)
    assert [each["model_version"] for each in found] == ["tiny@1"] * 3
    assert [{item["mismatch"] for item in each["items"]} for each in found] == [
        {None},
        {"other_model"},
        {"other_model"},
    ]


def test_a_bundle_without_a_version_is_that_of_its_users_share(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    live = live_of(bundles, tmp_path)
    live.follow({"tiny": Serving("1", shares={"2": 0.5})})
    low, high = (served[version][0] | {"model_version": "tiny"} for version in ("2", "1"))
    found = explained(live, [low | {"user_id_hash": "0" * 16}, high | {"user_id_hash": "f" * 16}])
    assert [each["model_version"] for each in found] == ["tiny@2", "tiny@1"]
    assert "model_mismatch" not in {item["status"] for each in found for item in each["items"]}


def test_what_is_promoted_stays_and_what_is_idle_or_too_much_goes(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    now = 0.0
    live = live_of(bundles, tmp_path, max_bundles=2, idle_s=60.0, clock=lambda: now)
    live.follow({"tiny": Serving("2")})
    assert set(live.versions) == {"tiny@1", "tiny@2"}
    explained(live, served["3"][:1])
    assert len(live.versions) <= 2
    live.follow({"tiny": Serving("1")})
    now = 61.0
    explained(live, served["1"][:1])
    assert live.versions == ("tiny@1",)


def test_more_versions_than_there_is_room_for_do_not_load_in_turn(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    now, opened = 0.0, list[str]()

    def noted(bundle: Bundle) -> Explainer:
        opened.append(bundle.model_version)
        return Explainer(bundle)

    live = live_of(bundles, tmp_path, max_bundles=2, clock=lambda: now, open_explainer=noted)
    mixed = [served["2"][0], served["3"][0]]
    for _ in range(3):
        found = explained(live, mixed)
        assert [each["model_version"] for each in found] == ["tiny@2", "tiny@1"]
    assert opened == ["tiny@1", "tiny@2"]
    now = 61.0
    assert [each["model_version"] for each in explained(live, mixed[1:])] == ["tiny@3"]
    assert set(live.versions) == {"tiny@1", "tiny@3"}
    # A promotion takes the place of a version in use.
    live.follow({"tiny": Serving("2")})
    assert set(live.versions) == {"tiny@1", "tiny@2"}


def test_bundles_take_no_more_memory_than_they_may(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    metrics = Metrics()
    live = live_of(bundles, tmp_path, max_bytes=1, metrics=metrics)
    assert [each["model_version"] for each in explained(live, served["2"][:1])] == ["tiny@1"]
    assert metrics.registry.get_sample_value("whyrec_bundle_loads_total", {"result": "failed"}) == 1
    assert not list(tmp_path.iterdir()), "the copy of a bundle that is not used was left"


def test_a_bundle_that_fails_in_a_way_nobody_foresaw_is_refused_and_another_is_shown_with_its_memory(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    def fails_with_2(bundle: Bundle) -> Explainer:
        if bundle.version == "2":
            raise ZeroDivisionError
        return Explainer(bundle)

    now, metrics = 0.0, Metrics()
    live = live_of(bundles, tmp_path, metrics=metrics, open_explainer=fails_with_2, clock=lambda: now)
    found = explained(live, [served["2"][0], served["3"][0]])
    assert [each["model_version"] for each in found] == ["tiny@1", "tiny@3"]
    size = metrics.registry.get_sample_value("whyrec_live_bundle_bytes", {"version": "tiny@3"})
    assert size is not None
    assert size >= sum(path.stat().st_size for path in (bundles / "tiny@3").iterdir() if path.name != "manifest.json")
    now = 61.0
    explained(live, served["1"][:1])
    assert live.versions == ("tiny@1",)
    assert metrics.registry.get_sample_value("whyrec_live_bundle_bytes", {"version": "tiny@3"}) is None
    assert not list(tmp_path.iterdir()), "the copy of a bundle that was dropped was left"


class CountingStore(MemoryStore):
    """A store that counts what is read."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


def test_slates_of_any_number_of_unknown_versions_ask_the_store_for_some(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    store = CountingStore()
    live = LiveExplainers(
        Bundle.load(bundles / "tiny@1"),
        Explainer,
        BundleStore(store, tmp_path),
        Metrics(),
        max_bundles=3,
        max_bytes=2**40,
        idle_s=60.0,
    )
    slate = served["1"][0]
    explained(live, [slate | {"model_version": name} for name in ("", "..", "../tiny@1", "tiny@../1", "tiny@1/", "@")])
    assert store.reads == 0
    explained(live, [slate | {"model_version": f"tiny@{number}x"} for number in range(100)])
    assert 0 < store.reads < 20


def test_a_version_that_two_threads_ask_for_is_loaded_once(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    opened = list[str]()

    def noted(bundle: Bundle) -> Explainer:
        opened.append(bundle.model_version)
        return Explainer(bundle)

    live = live_of(bundles, tmp_path, open_explainer=noted)
    with ThreadPoolExecutor(2) as threads:
        promoted = threads.submit(live.follow, {"tiny": Serving("2")})
        found = threads.submit(explained, live, served["2"]).result()
        promoted.result()
    assert {each["model_version"] for each in found} == {"tiny@2"}
    assert opened == ["tiny@1", "tiny@2"]


def test_what_is_explained_while_another_version_is_loaded_is_explained_as_ever(
    bundles: Path, served: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    texts = [[item["text"] for item in each["items"]] for each in explained(live_of(bundles, tmp_path), served["1"])]
    for round_ in range(3):
        live = live_of(bundles, tmp_path)
        with ThreadPoolExecutor(2) as threads:
            promoted = threads.submit(live.follow, {"tiny": Serving("2", shares={"3": 0.5})})
            while not promoted.done():
                found = explained(live, served["1"])
                assert [[item["text"] for item in each["items"]] for each in found] == texts, round_
            promoted.result()
        assert set(live.versions) == {"tiny@1", "tiny@2", "tiny@3"}


def test_a_bundle_comes_from_s3(bundles: Path, s3_url: str, tmp_path: Path) -> None:
    store = open_store(s3_url)
    for path in (bundles / "tiny@2").iterdir():
        store.put_if_absent(f"tiny@2/{path.name}", path.read_bytes())
    kept = BundleStore(store, tmp_path)
    bundle = kept.fetch("tiny@2")
    assert bundle is not None
    assert bundle.model_version == "tiny@2"
    assert kept.fetch("tiny@3") is None
    store.delete("tiny@2/session.onnx")
    with pytest.raises(BundleError, match=r"session\.onnx"):
        kept.fetch("tiny@2")


@pytest.mark.server("kafka")
def test_the_control_topic_is_followed_and_a_message_that_is_none_changes_nothing(kafka_topics: Bus) -> None:
    settings = kafka_topics.settings.model_copy(update={"control_topic": f"c-{uuid.uuid4()}"})
    control = ControlTopic(settings)
    assert control.current() == {}
    publish(settings, "tiny", Serving("1"), {})
    assert control.current() == {"tiny": Serving("1")}
    with pytest.raises(DeliveryError, match="at the same time"):
        publish(settings, "other", Serving("2"), {})
    assert said_by(control) == {"tiny": Serving("1"), "other": Serving("2")}
    odd = Producer({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for value in (b"{}", b"not JSON", b'{"default": "3", "shares": {"4": 2}}'):
        odd.produce(settings.control_topic, value, b"tiny")
    odd.produce(settings.control_topic, None, b"other")
    odd.flush(10)
    changes = [said_by(control) for _ in range(4)]
    assert [change["tiny"] for change in changes] == [Serving("1")] * 4
    assert changes[-1]["other"] is None
    assert control.current() == {"tiny": Serving("1")}
    control.close()


def said_by(control: ControlTopic) -> dict[str, Serving | None]:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        for change in control.changes(1.0):
            return dict(change)
    raise AssertionError("nothing was said")


def test_a_folder_named_after_another_bundle_is_refused(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles / "tiny@1", tmp_path / "tiny@9")
    with pytest.raises(WhyrecError, match="holds tiny@1; name the folder after the bundle"):
        BundleStore(open_store(str(tmp_path)), tmp_path).fetch("tiny@9")


def test_promotions_shares_and_rollbacks() -> None:
    first = Serving("1")
    second = first.promoted("2").shared("3", 0.25)
    assert (second.default, second.previous, second.versions) == ("2", "1", ("2", "3"))
    users = Counter(second.version_for(f"{number * 2**64 // 1000:016x}") for number in range(1000))
    assert users == {"3": 250, "2": 750}
    assert second.version_for("no hexadecimal digits") in {"3", "2"}
    assert second.rolled_back() == Serving("2", "1")
    assert second.rolled_back().rolled_back() == Serving("1", "2")
    assert Serving.decoded(second.encoded()) == second
    with pytest.raises(ConfigurationError, match="at most 1 in all"):
        second.shared("4", 0.8)
    with pytest.raises(ConfigurationError, match="no version before 1"):
        first.rolled_back()


@pytest.fixture
def kafka_topics(settings: Settings, kafka: Any) -> Iterator[Bus]:
    with kafka_bus(settings, kafka.bootstrap) as found:
        yield found


@pytest.mark.slow
@pytest.mark.server("kafka")
def test_promoted_and_rolled_back_under_traffic_each_event_is_explained_once_by_the_version_that_served_it(
    kafka_topics: Bus, bundles: Path, served: dict[str, list[dict[str, Any]]], codec: Codec, tmp_path: Path
) -> None:
    bus = kafka_topics
    settings = bus.settings.model_copy(update={"bundle_dir": bundles / "tiny@1"})
    environment = {"WHYREC_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "WHYREC_CONTROL_TOPIC": f"c-{uuid.uuid4()}"}
    changes = {"bundles_url": str(bundles), "control_topic": environment["WHYREC_CONTROL_TOPIC"]}

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments), env=environment)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    expected: dict[str, str] = {}

    def send(*versions: str) -> None:
        for number in range(20):
            for version in versions:
                slate = served[version][number % 12] | {"request_id": str(uuid.uuid4())}
                expected[slate["request_id"]] = slate["model_version"]
                encoded = codec.encode("impression", slate, "t")
                bus.send_all([(encoded.value, encoded.headers)])

    assert "no version was promoted" in said("live")
    assert "default 1" in said("promote", "tiny@1")
    with running(settings, tmp_path / "log", **changes) as worker:
        send("1")
        assert "default 2; before it: 1" in said("promote", "tiny@2")
        deadline = time.monotonic() + 60
        while "whyrec_live_bundles 2.0" not in worker.metrics() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert 'whyrec_bundle_loads_total{result="loaded"} 1.0' in worker.metrics()
        assert 'whyrec_live_bundle_bytes{version="tiny@2"}' in worker.metrics()
        send("1", "2")
        worker.kill()
    with running(settings, tmp_path / "again", **changes) as worker:
        send("2", "1")
        assert "default 1; before it: 2" in said("rollback", "tiny")
        send("3", "1", "2")
        with bus.reader("explanations") as reader:
            messages = reader.until(
                lambda got: len({m.key() for m in got}) > 0 and len(_versions(got, codec)) >= len(expected)
            )
        rows = until_archived(settings, len(expected) * ITEMS)
        assert worker.stop() == 0
    assert _versions(messages, codec) == expected
    own = {f"WHYREC_{name.upper()}": value for name, value in changes.items()}
    own |= {"WHYREC_BUNDLE_DIR": str(settings.bundle_dir), "WHYREC_ARCHIVE_URL": settings.archive_url}
    own |= {"WHYREC_IMPRESSIONS_TOPIC": settings.topic("impressions")}
    for request in {version: request for request, version in expected.items()}.values():
        replayed = CliRunner().invoke(cli, ["replay", "--request", request], env=environment | own)
        assert replayed.exit_code == 0, (replayed.output, replayed.exception)
        assert f"Proven: {ITEMS} of {ITEMS}" in replayed.output
    assert rows is not None
    found = Counter(
        (str(row["request_id"]), row["model_version"]) for table in archived(settings) for row in table.to_pylist()
    )
    assert found == dict.fromkeys(expected.items(), ITEMS)


def _versions(messages: list[Any], codec: Codec) -> dict[str, str]:
    found = (codec.decode("explanation", m.value(), m.headers() or ()) for m in messages)
    return {each["request_id"]: each["model_version"] for each in found}
