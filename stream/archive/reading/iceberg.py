"""The archive as an Iceberg table for Trino, Spark or Athena. Existing objects are registered, none is copied.

The only file that knows ``pyiceberg`` (the extra ``iceberg``). A refresh is one snapshot of the table: it adds the
objects that readers see now and deletes those that a change removed. It does nothing if the table is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream.archive.log.commitlog import ObjectRef
from stream.archive.rows.slates import SCHEMA
from stream.errors import ConfigurationError
from stream.settings import Settings

if TYPE_CHECKING:
    from pyiceberg.table import Table

FOLDER: Final = "_iceberg"
"""Folder of the table's metadata within the archive. The archive itself ignores it."""

TABLE: Final = "whyrec.impressions"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh, in objects. ``metadata`` is the file that other engines register."""

    added: int
    removed: int
    objects: int
    metadata: str


def table(url: str, catalog: Path, settings: Settings) -> Table:
    """Open the table, or create it. Its catalogue is a SQLite file, its metadata is in the archive.

    Raises:
        ConfigurationError: the extra is not installed, or the folder of the catalogue does not exist.

    """
    try:
        from pyiceberg.catalog.sql import SqlCatalog
    except ImportError as error:
        raise ConfigurationError("Iceberg needs an extra: pip install 'whyrec[iceberg]'") from error
    if not catalog.absolute().parent.is_dir():
        raise ConfigurationError(f"{catalog}: name a file in a folder that exists")
    opened = SqlCatalog(
        "whyrec", uri=f"sqlite:///{catalog.absolute()}", warehouse=f"{_uri(url)}/{FOLDER}", **_access(settings)
    )
    opened.create_namespace_if_not_exists(TABLE.partition(".")[0])
    return opened.create_table_if_not_exists(TABLE, schema=SCHEMA, location=f"{_uri(url)}/{FOLDER}")


def refresh(target: Table, url: str, refs: Iterable[ObjectRef]) -> Refreshed:
    """Make the table consist of exactly these objects."""
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    wanted = {f"{_uri(url)}/{ref.key}" for ref in refs}
    present = {task.file.file_path: task.file for task in target.scan().plan_files()}
    added, removed = sorted(wanted - set(present)), sorted(set(present) - wanted)
    if added or removed:
        with target.transaction() as change:
            if target.metadata.name_mapping() is None:
                # The Parquet files have no field ids: Iceberg finds columns by their names.
                mapping = target.schema().name_mapping.model_dump_json()
                change.set_properties({"schema.name-mapping.default": mapping})
            with change.update_snapshot().overwrite() as snapshot:
                for path in removed:
                    snapshot.delete_data_file(present[path])
                for file in parquet_files_to_data_files(target.io, change.table_metadata, iter(added)):
                    snapshot.append_data_file(file)
    return Refreshed(len(added), len(removed), len(wanted), target.metadata_location)


def _uri(url: str) -> str:
    return url if url.startswith("s3://") else Path(url).absolute().as_uri()


def _access(settings: Settings) -> dict[str, Any]:
    given = {
        "s3.endpoint": settings.s3_endpoint_url,
        "s3.region": settings.s3_region,
        "s3.access-key-id": settings.s3_access_key_id and settings.s3_access_key_id.get_secret_value(),
        "s3.secret-access-key": settings.s3_secret_access_key and settings.s3_secret_access_key.get_secret_value(),
    }
    return {name: value for name, value in given.items() if value}
