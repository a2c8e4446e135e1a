"""Where the archive lies: a local folder or S3. This is the only file that knows s3fs."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from pydantic import SecretStr

from stream.archive.objects import (
    MemoryStore,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    Retrying,
    Store,
    StoreUnavailable,
    put_named_by_content,
)
from stream.errors import ArchiveError, ConfigurationError
from stream.settings import Settings

_INCOMING: Final = "_incoming"
"""Folder of the local store in which files grow before they get their name."""

_INCOMING_AGE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3; what is not set comes from the usual AWS environment. Secrets never show in its ``repr``."""

    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0


def open_store(url: str, s3: S3Options | None = None) -> Store:
    """Open the store at ``url``: a folder (created when first written to), ``s3://bucket/prefix``, or ``memory:``.

    Raises:
        ConfigurationError: another kind of URL, or no bucket.

    """
    if not url.strip():
        raise ConfigurationError("the archive URL is empty; expected a folder, file:///folder or s3://bucket/prefix")
    if url == "memory:":
        return MemoryStore()
    if url.startswith("s3://"):
        return Retrying(S3Store(url, s3 or S3Options()))
    if "://" in url and not url.startswith("file://"):
        raise ConfigurationError(f"archive URL {url!r}: expected a folder, file:///folder or s3://bucket/prefix")
    return Retrying(LocalStore(Path(url.removeprefix("file://"))))


def open_archive(settings: Settings) -> Store:
    """Open the store that the settings name.

    Raises:
        ConfigurationError: they name none.

    """

    def plain(secret: SecretStr | None) -> str | None:
        return None if secret is None else secret.get_secret_value()

    s3 = S3Options(
        settings.s3_endpoint_url,
        plain(settings.s3_access_key_id),
        plain(settings.s3_secret_access_key),
        settings.s3_region,
    )
    return open_store(settings.archive_url, s3)


def filesystem_of(store: Store) -> Any | None:
    """Return the fsspec file system by which DuckDB can read the store; None for a folder, which it reads itself."""
    inner = store.inner if isinstance(store, Retrying) else store
    return inner.filesystem if isinstance(inner, S3Store) else None


class LocalStore:
    """Objects as files: written under another name, flushed to disk, then linked to their own (link never replaces)."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.url = str(self._root)
        self._cleared = False

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`."""
        target = self._path(key)
        incoming = self._root / _INCOMING / uuid.uuid4().hex
        try:
            incoming.parent.mkdir(parents=True, exist_ok=True)
            self._clear_incoming()
            self._make_folder(target.parent)
            try:
                with incoming.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(incoming, target)
            finally:
                incoming.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except FileExistsError:
            raise ObjectExists(f"{key} is taken in {self.url}") from None
        except OSError as error:
            raise _of_os(error, key, self.url) from error

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:  # noqa: ARG002 - it has one class
        """See :class:`Store`."""
        put_named_by_content(self, lambda: self.put_if_absent(key, data), key, data)

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise _of_os(error, key, self.url) from error

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`."""
        try:
            return self._path(key).open("rb")
        except OSError as error:
            raise _of_os(error, key, self.url) from error

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        folder = self._root / prefix.rpartition("/")[0]
        found: list[ObjectInfo] = []
        try:
            for parent, folders, names in os.walk(folder):
                if Path(parent) == self._root and _INCOMING in folders:
                    folders.remove(_INCOMING)
                for name in names:
                    path = Path(parent, name)
                    key = path.relative_to(self._root).as_posix()
                    if key.startswith(prefix) and key > after:
                        status = path.stat()
                        found.append(ObjectInfo(key, status.st_size, status.st_mtime))
        except OSError as error:
            raise _of_os(error, prefix, self.url) from error
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _of_os(error, key, self.url) from error

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or any(part in ("..", ".") for part in parts):
            raise ArchiveError(f"key {key!r} does not stay inside {self.url}; expected relative parts")
        return self._root.joinpath(*parts)

    def _clear_incoming(self) -> None:
        """Once, remove what crashes left half-written; a file that still grows is never a day old."""
        if self._cleared:
            return
        self._cleared = True
        for path in (self._root / _INCOMING).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _INCOMING_AGE_S:
                    path.unlink()

    def _make_folder(self, folder: Path) -> None:
        # A new folder's own name must reach the disk too, or a power cut takes the synced file with it.
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for part in missing:
            _sync_folder(part.parent)


class S3Store:
    """Objects in a bucket; create-if-absent is the server's own (``If-None-Match: *``)."""

    def __init__(self, url: str, options: S3Options) -> None:
        import s3fs

        bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise ConfigurationError(f"archive URL {url!r} names no bucket; expected s3://bucket/prefix")
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        client: dict[str, Any] = {"region_name": options.region} if options.region else {}
        self._fs = s3fs.S3FileSystem(
            key=options.access_key_id,
            secret=options.secret_access_key,
            endpoint_url=options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
            client_kwargs=client,
            config_kwargs={
                "connect_timeout": options.connect_timeout_s,
                "read_timeout": options.read_timeout_s,
                "retries": {"max_attempts": 1},
                "s3": {"addressing_style": "path"},
            },
            use_listings_cache=False,
            # Who reads knows what it needs: a cache would only fetch more.
            default_cache_type="none",
            skip_instance_cache=True,
        )
        # Retried in one place: ours knows that a repeated create may meet its own first try.
        self._fs.retries = 1

    @property
    def filesystem(self) -> Any:
        """The fsspec file system beneath."""
        return self._fs

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`."""
        self._create(key, data)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """See :class:`Store`."""
        how = {} if storage_class is None else {"StorageClass": storage_class}
        put_named_by_content(self, lambda: self._create(key, data, **how), key, data)

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        try:
            found: bytes = self._fs.cat_file(self._path(key))
        except Exception as error:
            raise _of_s3(error, key, self.url) from error
        return found

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`."""
        try:
            found: BinaryIO = self._fs.open(self._path(key), "rb", cache_type="none")
        except Exception as error:
            raise _of_s3(error, key, self.url) from error
        return found

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            request["StartAfter"] = self._prefix + after
        while True:
            try:
                page = self._fs.call_s3("list_objects_v2", **request)
            except Exception as error:
                raise _of_s3(error, prefix, self.url) from error
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                yield ObjectInfo(key, found["Size"], found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        try:
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._prefix + key)
        except Exception as error:
            raise _of_s3(error, key, self.url) from error

    def _create(self, key: str, data: bytes, **how: str) -> None:
        try:
            self._fs.pipe_file(self._path(key), data, mode="create", **how)
        except FileExistsError:
            raise ObjectExists(f"{key} is taken in {self.url}") from None
        except Exception as error:
            raise _of_s3(error, key, self.url) from error

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _of_os(error: OSError, key: str, url: str) -> ArchiveError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{key} does not exist in {url}")
    if isinstance(error, PermissionError):
        return ArchiveError(
            f"{url}: {key}: not permitted; check who owns the folder, and that its file system has hard links"
        )
    return StoreUnavailable(f"{url}: {key}: {error.strerror or error}; the store is asked again")


def _of_s3(error: Exception, key: str, url: str) -> ArchiveError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{key} does not exist in {url}")
    if isinstance(error, PermissionError):
        return ArchiveError(f"{url}: {key}: not permitted ({error}); check the credentials and the bucket's policy")
    # The type and the message only: a botocore error's context holds the request, and with it a signature.
    return StoreUnavailable(f"{url}: {key}: {type(error).__name__}: {error}; the store is asked again")
