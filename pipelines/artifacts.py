"""Run directories: one folder a stage, published whole with its manifest last.

A run directory is a local path or any URI that ``pyarrow.fs`` opens. A stage writes into
``.partial/<stage>-<key>/`` and publishes by moving its files into ``<stage>/``, ``manifest.json`` last. A folder
without a manifest is therefore unfinished, and nothing reads it.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
UNFINISHED = ".tmp"  # how the name of a file ends while it is written


class ArtifactError(ValueError):
    """A file or folder of a run is missing, damaged or of another schema version."""


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of a local path or URI.

    Raises:
        ArtifactError: No file system knows the URI's scheme.
    """
    if "://" not in uri:
        # Mapped, since files are published by a rename and never written again: large tables load in seconds.
        return pafs.LocalFileSystem(use_mmap=True), str(Path(uri).expanduser().absolute())
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{uri}: expected a local path or a URI such as s3://bucket/run, {error}."
        ) from error
    return filesystem, path


class Folder:
    """A folder on a ``pyarrow.fs`` file system. Names are relative, with forward slashes."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self.filesystem = filesystem
        self.path = path.rstrip("/")

    def join(self, name: str) -> str:
        """Full path of a name inside the folder, as the file system wants it."""
        return f"{self.path}/{name}" if name else self.path

    def folder(self, name: str) -> "Folder":
        """A folder inside this one. It need not exist."""
        return Folder(self.filesystem, self.join(name))

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        info = self.filesystem.get_file_info(self.join(name))
        return bool(info.type != pafs.FileType.NotFound)

    def files(self) -> list[str]:
        """Names of all files below, sorted, without what is being written."""
        return [name for name in self._all_files() if not name.endswith(UNFINISHED)]

    def delete_unfinished(self) -> None:
        """Delete what writers that were killed left behind."""
        for name in self._all_files():
            if name.endswith(UNFINISHED):
                self.filesystem.delete_file(self.join(name))

    def _all_files(self) -> list[str]:
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        cut = len(self.path) + 1
        return sorted(info.path[cut:] for info in infos if info.type == pafs.FileType.File)

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        return int(self.filesystem.get_file_info(self.join(name)).size)

    def read_bytes(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            ArtifactError: The file is missing.
        """
        try:
            with self.filesystem.open_input_file(self.join(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{self.join(name)}: expected a file, found none. Run the stage again."
            ) from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file atomically: temporary name, then rename."""
        target = self.join(name)
        self.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(target + UNFINISHED) as stream:
            stream.write(data)
        self.filesystem.move(target + UNFINISHED, target)

    def read_json(self, name: str) -> Any:
        """Content of a JSON file.

        Raises:
            ArtifactError: The file is missing or no JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"{self.join(name)}: expected JSON, {error}. Run the stage again.") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file atomically, keys in the order given."""
        self.write_bytes(name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or all Parquet files of a folder in name order.

        Raises:
            ArtifactError: There is none, or it cannot be read.
        """
        info = self.filesystem.get_file_info(self.join(name))
        if info.type == pafs.FileType.File:
            names = [name]
        else:
            names = [f"{name}/{file}" for file in self.folder(name).files() if file.endswith(".parquet")]
        if not names:
            raise ArtifactError(f"{self.join(name)}: expected Parquet, found none. Run the stage again.")
        try:
            tables = [pq.read_table(self.join(n), columns=columns, filesystem=self.filesystem) for n in names]
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(f"{self.join(name)}: expected readable Parquet, {error}.") from error
        return pa.concat_tables(tables)

    def write_table(self, name: str, table: pa.Table, compression: str = "zstd", **options: Any) -> None:
        """Write a Parquet file atomically; zstd at level 1. ``options`` are those of ``pq.write_table``."""
        target = self.join(name)
        temporary = f"{target}.{os.getpid()}{UNFINISHED}"
        self.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(temporary) as stream:
            level = 1 if compression == "zstd" else None
            pq.write_table(table, stream, compression=compression, compression_level=level, **options)
        self.filesystem.move(temporary, target)

    def sha256(self, name: str) -> str:
        """Hash of a file's content, hexadecimal."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.join(name)) as stream:
            for chunk in iter(lambda: stream.read(1 << 22), b""):
                digest.update(chunk)
        return digest.hexdigest()

    def delete(self) -> None:
        """Remove the folder and all in it; nothing happens where there is none."""
        if self.exists():
            self.filesystem.delete_dir(self.path)

    def move_files_from(self, source: "Folder", besides: str) -> None:
        """Move every file but one of another folder of the same file system here."""
        for name in source.files():
            if name == besides:
                continue
            target = self.join(name)
            self.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
            self.filesystem.move(source.join(name), target)


class RunDirectory(Folder):
    """The folder of one run; ``uri`` is the text it was opened by, for messages and for other processes."""

    def __init__(self, uri: str) -> None:
        filesystem, path = open_filesystem(uri)
        super().__init__(filesystem, path)
        self.uri = uri

    def partial(self, stage: str, key: str) -> Folder:
        """Where a stage writes before it publishes. What an interrupted attempt with the same key left is kept."""
        for other in self._partials(stage):
            if other != f"{stage}-{key[:16]}":
                self.folder(f".partial/{other}").delete()
        folder = self.folder(f".partial/{stage}-{key[:16]}")
        folder.filesystem.create_dir(folder.path, recursive=True)
        return folder

    def _partials(self, stage: str) -> Iterator[str]:
        selector = pafs.FileSelector(self.join(".partial"), allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            name = info.base_name
            if name.rsplit("-", 1)[0] == stage:
                yield name

    def publish(
        self, stage: str, partial: Folder, manifest: dict[str, Any], keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Make a stage's partial folder the stage's folder, manifest last. Returns the manifest with its files.

        ``keep`` names files that are there already and stay as they are.
        """
        names = partial.files()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            hashes = pool.map(partial.sha256, names)
            files = {n: {"bytes": partial.size(n), "sha256": h} for n, h in zip(names, hashes, strict=True)}
        if keep:
            before = self.manifest(stage)
            assert before is not None, stage
            files = {n: entry for n, entry in before["files"].items() if n in keep} | files
        manifest = {"schema_version": SCHEMA_VERSION, "stage": stage, **manifest, "files": files}
        partial.write_json(MANIFEST, manifest)
        self._complete(stage, partial)
        return manifest

    def recover(self, stage: str) -> None:
        """Publish what an earlier attempt had finished when it was cut off."""
        for name in list(self._partials(stage)):
            partial = self.folder(f".partial/{name}")
            if partial.exists(MANIFEST):
                self._complete(stage, partial)

    def _complete(self, stage: str, partial: Folder) -> None:
        manifest, final = partial.read_json(MANIFEST), self.folder(stage)
        if final.exists(MANIFEST):
            final.filesystem.delete_file(final.join(MANIFEST))
        for name in final.files():
            if name not in manifest["files"]:
                final.filesystem.delete_file(final.join(name))
        final.move_files_from(partial, besides=MANIFEST)
        final.write_json(MANIFEST, manifest)
        partial.delete()

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """The manifest of a finished stage, or None.

        Raises:
            ArtifactError: It is damaged, or of another schema version.
        """
        if not self.exists(f"{stage}/{MANIFEST}"):
            return None
        manifest = self.read_json(f"{stage}/{MANIFEST}")
        found = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if found != SCHEMA_VERSION:
            raise ArtifactError(
                f"{self.join(stage)}/{MANIFEST}: expected schema version {SCHEMA_VERSION}, found {found}. "
                "Choose another paths.run, or delete this one and run again."
            )
        return dict(manifest)
