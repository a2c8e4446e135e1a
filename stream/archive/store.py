"""Opening the archive's object store, and the store in a local folder."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
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
from stream.archive.s3 import S3Options, S3Store
from stream.errors import ArchiveError, ConfigurationError
from stream.settings import Settings

_INCOMING: Final = "_incoming"
"""Folder of the local store for files that are still being written."""

_INCOMING_AGE_S: Final = 86_400.0


def open_store(url: str, s3: S3Options | None = None) -> Store:
    """Open the store at ``url``: a folder (created by the first write), ``s3://bucket/prefix``, or ``memory:``.

    Raises:
        ConfigurationError: ``url`` is empty, is a URL of another kind, or names no bucket.

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
        ConfigurationError: the settings name no archive that can be opened.

    """
    return open_store(settings.archive_url, _s3_options(settings))


def open_bundles(settings: Settings) -> Store:
    """Open the folder or prefix that holds a bundle for each version that serves.

    Raises:
        ConfigurationError: the settings name none, or none that can be opened.

    """
    if settings.bundles_url is None:
        raise ConfigurationError("the versions of models have no place: set WHYREC_BUNDLES_URL")
    return open_store(settings.bundles_url, _s3_options(settings))


def _s3_options(settings: Settings) -> S3Options:
    def plain(secret: SecretStr | None) -> str | None:
        return None if secret is None else secret.get_secret_value()

    return S3Options(
        settings.s3_endpoint_url,
        plain(settings.s3_access_key_id),
        plain(settings.s3_secret_access_key),
        settings.s3_region,
    )


def filesystem_of(store: Store) -> Any | None:
    """Return the fsspec file system through which DuckDB reads the store; None for a folder: DuckDB reads folders."""
    inner = store.inner if isinstance(store, Retrying) else store
    return inner.filesystem if isinstance(inner, S3Store) else None


class LocalStore:
    """Objects as files. A file is written under a temporary name, flushed to disk, then linked to its key.

    ``link`` never replaces a file, which makes creation atomic and exclusive.
    """

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
            raise ObjectExists(f"{key} exists already in {self.url}") from None
        except OSError as error:
            raise _archive_error(error, key, self.url) from error

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:  # noqa: ARG002 - folders have one
        """See :class:`Store`."""
        put_named_by_content(self, lambda: self.put_if_absent(key, data), key, data)

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise _archive_error(error, key, self.url) from error

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`."""
        try:
            return self._path(key).open("rb")
        except OSError as error:
            raise _archive_error(error, key, self.url) from error

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`. A file or folder that another process deletes meanwhile is left out."""
        found: list[ObjectInfo] = []
        for parent, folders, names in os.walk(self._root / prefix.rpartition("/")[0], onerror=self._list_failed):
            if Path(parent) == self._root and _INCOMING in folders:
                folders.remove(_INCOMING)
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self._root).as_posix()
                if not key.startswith(prefix) or key <= after:
                    continue
                try:
                    status = path.stat()
                except OSError as error:
                    self._list_failed(error)
                else:
                    found.append(ObjectInfo(key, status.st_size, status.st_mtime))
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _archive_error(error, key, self.url) from error

    def _list_failed(self, error: OSError) -> None:
        """Raise what kept a listing from being complete; a path that does not exist (any more) is no error."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return
        if isinstance(error, PermissionError):
            raise ArchiveError(
                f"{self.url}: {error.filename} cannot be listed: not permitted; "
                "give this user read and search permission on every folder of the archive"
            ) from error
        raise _archive_error(error, str(error.filename), self.url) from error

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or any(part in ("..", ".") for part in parts):
            raise ArchiveError(f"key {key!r} does not stay inside {self.url}; expected a relative path without ..")
        return self._root.joinpath(*parts)

    def _clear_incoming(self) -> None:
        """Remove, once, the unfinished files of crashed writers; no writer takes a day for a file."""
        if self._cleared:
            return
        self._cleared = True
        for path in (self._root / _INCOMING).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _INCOMING_AGE_S:
                    path.unlink()

    def _make_folder(self, folder: Path) -> None:
        # The entry of a new folder in its parent must reach the disk too: without it a power cut loses the synced file.
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for part in missing:
            _sync_folder(part.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _archive_error(error: OSError, key: str, url: str) -> ArchiveError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{key} does not exist in {url}")
    if isinstance(error, PermissionError):
        return ArchiveError(
            f"{url}: {key}: not permitted; check who owns the folder, and that its file system has hard links"
        )
    return StoreUnavailable(f"{url}: {key}: {error.strerror or error}; the request may be repeated")
