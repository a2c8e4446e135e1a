"""``whyrec replay`` shows every number behind an archived explanation."""

from __future__ import annotations

import json

import pytest

from models.bundle import Bundle
from tests.replay.conftest import Explained


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
    assert shown.count("SHAP values of all features") == 2
    assert shown.count("Effects of all past events") == 2
    assert "3 more ledgers" in shown
