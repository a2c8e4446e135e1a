"""The place of the bundles of all versions: below a folder or an S3 prefix, each in a folder named NAME@VERSION."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from models.bundle import Bundle
from models.errors import BundleError
from models.manifest import read_manifest
from stream.archive.objects import ObjectMissing, Store

_MANIFEST: Final = "manifest.json"
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*")


class BundleStore:
    """Copies bundles into a folder of this machine, since the runtimes open files."""

    def __init__(self, store: Store, copies: Path) -> None:
        self._store = store
        self._copies = copies

    def fetch(self, model_version: str) -> Bundle | None:
        """Open a bundle; None where there is no folder of this name, or a folder cannot have it.

        Raises:
            BundleError: the folder is no bundle, or that of another version.
            ArchiveError: the store refuses access, or does not answer.

        """
        if not _FOLDER.fullmatch(model_version):
            return None
        copy = Path(mkdtemp(dir=self._copies))
        try:
            bundle = self._opened(model_version, copy)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        if bundle is None:
            copy.rmdir()
        return bundle

    def forget(self, bundle: Bundle) -> None:
        """Delete the copy of a bundle that nobody uses any more."""
        if bundle.path.is_relative_to(self._copies):
            shutil.rmtree(bundle.path, ignore_errors=True)

    def _opened(self, model_version: str, copy: Path) -> Bundle | None:
        try:
            (copy / _MANIFEST).write_bytes(self._store.get(f"{model_version}/{_MANIFEST}"))
        except ObjectMissing:
            return None
        # The manifest, which is checked here, names no file outside its folder.
        for file in read_manifest(copy).files:
            try:
                (copy / file).write_bytes(self._store.get(f"{model_version}/{file}"))
            except ObjectMissing as error:
                raise BundleError(
                    f"{self._store.url}/{model_version}: expected the file {file} that the manifest names, got none: "
                    "copy the bundle there completely, the manifest last"
                ) from error
        bundle = Bundle.load(copy)
        if bundle.model_version != model_version:
            raise BundleError(
                f"{self._store.url}/{model_version} holds {bundle.model_version}; name the folder after the bundle"
            )
        return bundle
