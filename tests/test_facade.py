"""whyrec in a process of one's own: one import, dictionaries in, dictionaries out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import whyrec
from tests.bundles import tiny_bundle, tiny_impression

_LOADED = "import sys, whyrec; print(sorted({name.partition('.')[0] for name in sys.modules}))"


def test_one_import_explains_impressions(tmp_path: Path) -> None:
    explainer = whyrec.Explainer.load(tiny_bundle(tmp_path))
    slates = [tiny_impression(explainer.bundle, seed=seed) for seed in range(2)]
    explanations = explainer.explain(slates)
    assert [each["request_id"] for each in explanations] == [slate["request_id"] for slate in slates]
    assert all(item["text"] for explanation in explanations for item in explanation["items"])


def test_the_import_loads_neither_kafka_nor_stores() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    assert "faust" not in done.stdout
    assert "s3fs" not in done.stdout
    assert "aiokafka" not in done.stdout
