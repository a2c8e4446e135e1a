"""The terminal view of an explanation event."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from models.bundle import Bundle
from models.reranker.features import FEATURES
from stream.explain.pipeline import Explainer
from stream.terminal.panel import panel
from tests.bundles import tiny_bundle, tiny_impression


def printed(explanation: Any, bundle: Bundle) -> str:
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(panel(explanation, bundle))
    return console.export_text()


def test_an_explanation_that_names_sensitive_features_is_shown_without_them(tmp_path: Path) -> None:
    """Events from before a feature was declared sensitive still name it."""
    bundle = Bundle.load(tiny_bundle(tmp_path))
    [explanation] = Explainer(bundle).explain([tiny_impression(bundle, session=12, items=8, seed=1)])
    named = [each for item in explanation["items"] for each in item["evidence"]["features"]]
    hidden = named[0]["name"]
    declared = [dataclasses.replace(each, is_sensitive=each.name == hidden) for each in FEATURES]
    shown = {each["display_name"] for each in named if each["name"] != hidden}
    assert named[0]["display_name"] in printed(explanation, bundle)
    text = printed(explanation, dataclasses.replace(bundle, features=tuple(declared)))
    assert named[0]["display_name"] not in text
    assert all(name in text for name in shown)
