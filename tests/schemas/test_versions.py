"""A new version of an event is one schema file and one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys
from schemas import columnar
from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.versions import VERSIONS, schema_fingerprint

event, records = sys.argv[1], json.load(sys.stdin)
codec = Codec()
messages = []
for version, record in records:
    if version == VERSIONS[event][-1]:
        encoded = codec.encode(event, record, "topic")
        messages.append((encoded.value, encoded.headers))
    else:
        messages.append((bytes.fromhex(record), [(FINGERPRINT_HEADER, schema_fingerprint(event, version).encode())]))
decoded = codec.decode_batch(event, messages)
again = codec.decode_batch(event, [(each.value, each.headers) for each in codec.encode_batch(event, decoded.batch, "")])
assert not decoded.errors and not again.errors, (decoded.errors, again.errors)
assert columnar.to_records(event, again.batch) == columnar.to_records(event, decoded.batch)
print(json.dumps(columnar.to_records(event, decoded.batch)))
"""

IMPRESSION: dict[str, Any] = {
    "request_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "timestamp_ms": 1_750_000_000_000,
    "user_id_hash": "0123456789abcdef", "region": "EU", "locale": "en", "feature_set": "f", "model_version": "m@1",
    "session": [], "user_features": [1.0], "context_features": [],
    "items": [
        {"item_id": "a", "position": 1, "ranking_score": 0.5, "reranking_score": 0.25, "item_features": []}
    ],
    "detail": True,
}  # fmt: skip

FIELDS = {
    "device": {"name": "device", "type": ["null", "string"], "default": None},
    "surface": {
        "name": "surface",
        "type": {"type": "enum", "name": "Surface", "symbols": ["home", "search"]},
        "default": "home",
    },
    "tags": {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
}
VALUES = {"device": ("tv", None), "surface": ("search", "home"), "tags": (["new"], [])}


@pytest.mark.parametrize("field", FIELDS)
def test_an_optional_field_is_one_schema_file_and_one_line(field: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "schemas" / "avro"
    newest = json.loads((folder / "impression.v3.avsc").read_text("utf-8"))
    newest["fields"].append(FIELDS[field])
    (folder / "impression.v4.avsc").write_text(json.dumps(newest), "utf-8")
    versions = tmp_path / "schemas" / "versions.py"
    code, lines = re.subn(r'"impression": \(1, 2, 3\)', '"impression": (1, 2, 3, 4)', versions.read_text("utf-8"))
    assert lines == 1
    versions.write_text(code, "utf-8")

    given, default = VALUES[field]
    older = _encoded_as_version_3()
    records = [[4, IMPRESSION | {field: given}], [3, older], [4, IMPRESSION | {field: default}]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "impression"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, input=json.dumps(records), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [IMPRESSION | {field: value} for value in (given, default, default)]


def _encoded_as_version_3() -> str:
    from schemas.codec import Codec

    return Codec().encode("impression", IMPRESSION, "topic").value.hex()
