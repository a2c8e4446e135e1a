"""Versity S3 Gateway over a temporary folder: a real S3 server that honours conditional writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import botocore.session

from tests.parts import cache
from tests.parts.foreground import until_interrupted
from tests.parts.process import ServerProcess, accepts_connections, free_port
from tests.parts.server import Server

VERSION = "v1.8.0"
KEPT = f"versitygw-{VERSION}"
PACKAGE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
REGION = "us-east-1"


class S3Server(Server):
    """An S3 endpoint on a free local port with one empty bucket.

    `environment` holds the usual AWS variables that point any S3 client, s3fs included, at it. `options` are more of
    the server's own.
    """

    def __init__(self, *options: str) -> None:
        super().__init__("s3")
        binary = fetch()
        self._port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self._port}"
        self.access_key = "whyrec-test"
        self.secret_key = "whyrec-test-secret"  # noqa: S105 - guards a temporary folder
        self.bucket = "whyrec-archive"
        self.environment = environment(self.endpoint_url, self.access_key, self.secret_key)
        objects = self.directory / "objects"
        objects.mkdir()
        self.process = ServerProcess(
            "s3-server",
            [
                *(str(binary), "--port", f"127.0.0.1:{self._port}", "--region", REGION, "--quiet"),
                *("--access", self.access_key, "--secret", self.secret_key, *options),
                *("posix", *self._attributes(objects), str(objects)),
            ],
            ready=lambda: accepts_connections(self._port),
            directory=self.directory,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            create_bucket(self.environment, self.bucket)
        except BaseException:
            self._close()
            raise
        return self

    def _attributes(self, objects: Path) -> list[str]:
        # Object metadata lives in extended attributes, which some temporary folders (tmpfs on older kernels) lack.
        try:
            os.setxattr(objects, "user.whyrec", b"1")
        except (OSError, AttributeError):
            sidecar = self.directory / "metadata"
            sidecar.mkdir()
            return ["--sidecar", str(sidecar)]
        os.removexattr(objects, "user.whyrec")
        return []


def fetch() -> Path:
    """The server's executable, built on first use."""
    return cache.kept(KEPT, lambda folder: cache.fetch_go_command(folder, PACKAGE)) / "versitygw"


def environment(endpoint_url: str, access_key: str, secret_key: str) -> dict[str, str]:
    """The AWS variables that point a client at this server, and only there."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def create_bucket(environment: dict[str, str], bucket: str) -> None:
    """Create a bucket, without a location constraint: servers outside AWS refuse one."""
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=environment["AWS_DEFAULT_REGION"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.create_bucket(Bucket=bucket)
    finally:
        client.close()


if __name__ == "__main__":
    until_interrupted(S3Server(), "endpoint_url", "access_key", "secret_key", "bucket")
