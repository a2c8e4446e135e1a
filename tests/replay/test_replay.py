"""``whyrec replay``: what was archived is made again from its impression, or it is said why it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from models.bundle import Bundle
from schemas.json_form import to_json
from stream.kafka.cluster import Cluster
from stream.replay.compare import NotReplayable
from stream.replay.source import ImpressionGone, OtherRequest
from tests.bundles import tiny_bundle
from tests.replay.conftest import SLATES, Explained

Rows = list[dict[str, Any]]


def test_every_text_is_proven_from_the_impression_on_kafka(explained: Explained) -> None:
    for number in range(SLATES):
        result = explained.replay(number)
        assert result.exit_code == 0, result.output
        assert "Proven: 5 of 5" in result.output


def test_json_holds_every_number_behind_every_item(explained: Explained, bundle: Bundle) -> None:
    result = explained.replay(1, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    session = explained.impressions[1]["session"]
    assert told["proven"] is True
    assert told["attention"]["events"] == list(range(len(session)))
    layers = told["attention"]["layers"]
    assert (len(layers), len(layers[0]), len(layers[0][0])) == (2, 2, len(session))
    assert len(told["items"]) == 5
    for item in told["items"]:
        assert item["archived_text_hash"] == item["text_hash"]
        detail = item["detail"]
        assert [each["name"] for each in detail["features"]] == [each.name for each in bundle.features]
        assert [each["event"] for each in detail["events"]] == list(range(len(session)))
        total = detail["base_value"] + sum(each["contribution"] for each in detail["features"])
        assert total - detail["residual"] == pytest.approx(detail["raw_score"], abs=1e-9)


def test_the_terminal_shows_the_ledgers_that_were_asked_for(explained: Explained) -> None:
    shown = explained.replay(2, "--items", "2").output
    assert shown.count("What the score is made of") == 2
    assert shown.count("What each event does to the fit") == 2
    assert shown.count("How often you only have a look") == 2  # every feature, however little it counts for
    assert "3 more ledgers" in shown


def test_a_file_serves_where_there_is_no_broker(explained: Explained, tmp_path: Path) -> None:
    file = tmp_path / "impression.json"
    file.write_text(to_json(explained.impressions[0]), encoding="utf-8")
    result = explained.replay(0, "--impression", str(file), bootstrap_servers="127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert "Proven" in result.output


def test_the_impression_of_another_request_is_refused(explained: Explained, tmp_path: Path) -> None:
    file = tmp_path / "impression.json"
    file.write_text(to_json(explained.impressions[1]), encoding="utf-8")
    result = explained.replay(0, "--impression", str(file))
    assert isinstance(result.exception, OtherRequest)


def test_another_impression_under_the_same_request_proves_nothing(explained: Explained, tmp_path: Path) -> None:
    other = explained.impressions[0] | {"session": explained.impressions[1]["session"]}
    file = tmp_path / "impression.json"
    file.write_text(to_json(other), encoding="utf-8")
    result = explained.replay(0, "--impression", str(file))
    assert result.exit_code == 1
    assert "Not the same" in result.output


def flipped(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def with_first(**changes: Callable[[Any], Any]) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        return [rows[0] | {name: of(rows[0][name]) for name, of in changes.items()}, *rows[1:]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_first(explanation_text_hash=flipped), "differs: explanation_text_hash"),
        (with_first(cited_items=lambda cited: [*cited, "s001"]), "differs: cited_items"),
        (with_first(shap_top_3=lambda top: [{**top[0], "value": -top[0]["value"]}, *top[1:]]), "differs: shap_top_3"),
        (with_first(status=lambda status: "factual" if status != "factual" else "generic"), "differs: status"),
        (with_first(item_id=lambda _: "s999"), "not shown"),
        (lambda rows: rows[1:], "not archived"),
        (lambda rows: [rows[0], *rows], "twice"),
    ],
    ids=["text", "citation", "contribution", "status", "item", "row removed", "row added"],
)
def test_a_changed_row_is_named(
    explained: Explained, tmp_path: Path, change: Callable[[Rows], Rows], said: str
) -> None:
    result = explained.replay(3, archive_url=explained.tampered(tmp_path / "archive", change, 3))
    assert result.exit_code == 1, result.output
    assert said in " ".join(result.output.split())
    assert "Proven" not in result.output


def test_changed_templates_are_told_apart_from_a_changed_row(explained: Explained, tmp_path: Path) -> None:
    change = with_first(explanation_text_hash=flipped, wording_hash=lambda _: b"otherone")
    said = explained.replay(3, archive_url=explained.tampered(tmp_path / "archive", change, 3)).output
    assert "reworded" in said
    assert "templates that have changed since" in said
    assert "Not the same" not in said


def test_another_bundle_is_refused(explained: Explained, tmp_path: Path) -> None:
    result = explained.replay(0, "--bundle", str(tiny_bundle(tmp_path, version="2")))
    assert isinstance(result.exception, NotReplayable)
    assert "tiny@2" in str(result.exception)


def test_a_request_that_is_not_archived_is_said_to_be_missing(explained: Explained) -> None:
    result = explained.replay(0, "--date", "2001-01-01")
    assert "holds no row of request" in str(result.exception)


def test_what_kafka_no_longer_holds_is_asked_for(explained: Explained) -> None:
    # Last in this file: it takes the impressions away from the broker.
    settings = explained.settings
    topic = settings.topic("impressions")
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for future in admin.delete_records([TopicPartition(topic, number, -1) for number in range(4)]).values():
        future.result()
    expired = explained.replay(0).exception
    assert isinstance(expired, ImpressionGone)
    assert "retention" in str(expired)
    assert "--impression" in str(expired)

    for future in admin.delete_topics([topic]).values():
        future.result()
    Cluster(settings).create()
    anew = explained.replay(0).exception
    assert isinstance(anew, ImpressionGone)
    assert "created again" in str(anew)
