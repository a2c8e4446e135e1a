"""The archive as an Iceberg table, for Trino, Spark, Athena: existing objects registered, none copied.

The only file that knows ``pyiceberg`` (the extra ``iceberg``). A refresh is one snapshot of the table: it takes in the
objects that readers see now and lets go of those that a change removed, and does nothing if there are none of either.
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
"""Where the table's metadata lies, beside what it is about; nothing of it counts as archived."""

TABLE: Final = "whyrec.impressions"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did; ``metadata`` is the file that other engines register."""

    added: int
    removed: int
    objects: int
    metadata: str


def table(url: str, catalog: Path, settings: Settings) -> Table:
    """Open the table, or make it: the catalogue in a SQLite file, the metadata in the archive.

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
    """Make the table hold exactly these objects."""
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    wanted = {f"{_uri(url)}/{ref.key}" for ref in refs}
    there = {task.file.file_path: task.file for task in target.scan().plan_files()}
    added, removed = sorted(wanted - set(there)), sorted(set(there) - wanted)
    if added or removed:
        with target.transaction() as change:
            if target.metadata.name_mapping() is None:
                # Our Parquet has no field ids: columns are found by their names.
                mapping = target.schema().name_mapping.model_dump_json()
                change.set_properties({"schema.name-mapping.default": mapping})
            with change.update_snapshot().overwrite() as snapshot:
                for path in removed:
                    snapshot.delete_data_file(there[path])
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
