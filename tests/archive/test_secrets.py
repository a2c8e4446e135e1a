"""No credential reaches a log, whatever the level, nor what a command prints or the archive keeps."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.archive.s3 import S3Options
from stream.archive.store import open_store
from stream.commands.archive import app
from tests.archive.test_pull import DAYS, fill
from tests.parts.fixtures import ExistingS3Server
from tests.parts.s3_server import S3Server


def test_no_credential_is_logged_printed_or_archived(
    s3_server: S3Server | ExistingS3Server, s3_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(s3_url, S3Options(s3_server.endpoint_url, s3_server.access_key, s3_server.secret_key))
    key, wrong = tmp_path / "root.pem", "not-" + s3_server.secret_key
    environment = {
        "WHYREC_ARCHIVE_URL": s3_url,
        "WHYREC_S3_ENDPOINT_URL": s3_server.endpoint_url,
        "WHYREC_S3_ACCESS_KEY_ID": s3_server.access_key,
        "WHYREC_S3_SECRET_ACCESS_KEY": s3_server.secret_key,
        "WHYREC_SIGNING_KEY_FILE": str(key),
    }
    said = []
    # Whyrec's own loggers, at their most talkative; those of botocore print what they sign, and are off by default.
    with caplog.at_level(logging.DEBUG, logger="stream"):
        fill(store, 1)
        for arguments in (
            ["keys", "new", str(key)],
            ["digest"],
            ["verify"],
            ["pull", "--date", DAYS[0], "--out", str(tmp_path / "out")],
            ["receipt", str(tmp_path / "out" / "receipt.json")],
        ):
            done = CliRunner().invoke(app, arguments, env=environment)
            assert done.exit_code == 0, (arguments, done.output, done.exception)
            said.append(done.output)
        refused = CliRunner().invoke(app, ["verify"], env=environment | {"WHYREC_S3_SECRET_ACCESS_KEY": wrong})
        assert refused.exit_code != 0
        said += [refused.output, repr(refused.exception), repr(getattr(refused.exception, "__cause__", None))]
    said += [record.getMessage() for record in caplog.records if record.name.startswith("stream")]
    kept = b"".join(store.get(info.key) for info in store.list("_")) + (tmp_path / "out" / "receipt.json").read_bytes()
    for secret in (s3_server.secret_key, wrong, key.read_text().splitlines()[1]):
        assert not [each for each in said if secret in each]
        assert secret.encode() not in kept
