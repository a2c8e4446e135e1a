"""The archive in an S3 bucket. This is the only file that knows s3fs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from stream.archive.objects import ObjectExists, ObjectInfo, ObjectMissing, StoreUnavailable, put_named_by_content
from stream.errors import ArchiveError, ConfigurationError


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. A field that is None is taken from the usual AWS environment. ``repr`` shows no secret."""

    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0


class S3Store:
    """Objects in a bucket. S3 itself implements create-if-absent (``If-None-Match: *``)."""

    def __init__(self, url: str, options: S3Options) -> None:
        bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise ConfigurationError(f"archive URL {url!r} names no bucket; expected s3://bucket/prefix")
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._fs = _file_system(options)

    @property
    def filesystem(self) -> Any:
        """The fsspec file system that this store uses."""
        return self._fs

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`stream.archive.objects.Store`."""
        self._create(key, data)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """See :class:`stream.archive.objects.Store`."""
        how = {} if storage_class is None else {"StorageClass": storage_class}
        put_named_by_content(self, lambda: self._create(key, data, **how), key, data)

    def get(self, key: str) -> bytes:
        """See :class:`stream.archive.objects.Store`."""
        try:
            found: bytes = self._fs.cat_file(self._path(key))
        except Exception as error:
            raise _archive_error(error, key, self.url) from error
        return found

    def open(self, key: str) -> BinaryIO:
        """See :class:`stream.archive.objects.Store`."""
        try:
            found: BinaryIO = self._fs.open(self._path(key), "rb", cache_type="none")
        except Exception as error:
            raise _archive_error(error, key, self.url) from error
        return found

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`stream.archive.objects.Store`."""
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            request["StartAfter"] = self._prefix + after
        while True:
            try:
                page = self._fs.call_s3("list_objects_v2", **request)
            except Exception as error:
                raise _archive_error(error, prefix, self.url) from error
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                yield ObjectInfo(key, found["Size"], found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        """See :class:`stream.archive.objects.Store`."""
        try:
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._prefix + key)
        except Exception as error:
            raise _archive_error(error, key, self.url) from error

    def _create(self, key: str, data: bytes, **how: str) -> None:
        try:
            self._fs.pipe_file(self._path(key), data, mode="create", **how)
        except FileExistsError:
            raise ObjectExists(f"{key} exists already in {self.url}") from None
        except Exception as error:
            raise _archive_error(error, key, self.url) from error

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"


def _file_system(options: S3Options) -> Any:
    # Imported here: a command that works on a folder need not load the AWS client.
    from s3fs import S3FileSystem

    class SingleAttempt(S3FileSystem):  # type: ignore[misc]
        """Each request is sent once; :class:`stream.archive.objects.Retrying` alone repeats requests.

        ``Retrying`` knows that a repeated create may meet the object of its own first attempt; s3fs does not.
        """

        retries = 1

    return SingleAttempt(
        key=options.access_key_id,
        secret=options.secret_access_key,
        endpoint_url=options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs={
            "connect_timeout": options.connect_timeout_s,
            "read_timeout": options.read_timeout_s,
            "retries": {"max_attempts": 1},
            "s3": {"addressing_style": "path"},
        },
        use_listings_cache=False,
        # The readers choose exactly the bytes that they need; a cache would fetch more.
        default_cache_type="none",
        skip_instance_cache=True,
    )


def _archive_error(error: Exception, key: str, url: str) -> ArchiveError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{key} does not exist in {url}")
    if isinstance(error, PermissionError):
        return ArchiveError(f"{url}: {key}: not permitted ({error}); check the credentials and the bucket's policy")
    # Only the type and the message: the context of a botocore error holds the request, and with it a signature.
    return StoreUnavailable(f"{url}: {key}: {type(error).__name__}: {error}; the request may be repeated")
