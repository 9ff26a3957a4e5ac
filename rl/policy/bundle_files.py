"""The files of a policy bundle: their names, their hashes, and the manifest that lists them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

BUNDLE_SCHEMA = 1
MANIFEST = "manifest.json"
FILES = (
    "policy.safetensors",
    "shape.json",
    "items.parquet",
    "users.parquet",
    "encoder.json",
    "config.json",
    "verdict.json",
    "probes.safetensors",
)


class BundleError(ValueError):
    """A policy bundle is damaged, incomplete, of another schema version, or does not repeat its probes."""


class ReadableFolder(Protocol):
    """Where a bundle lies."""

    path: str

    def exists(self, name: str = "") -> bool:
        """Whether a file is there."""

    def files(self) -> list[str]:
        """Names of all files."""

    def read_bytes(self, name: str) -> bytes:
        """Content of a file."""


class BundleFolder:
    """A bundle at a local path or any URI that ``pyarrow.fs`` opens."""

    def __init__(self, uri: str) -> None:
        """Opens nothing but the file system.

        Raises:
            BundleError: No file system knows the URI's scheme.
        """
        local = str(Path(uri).expanduser().absolute())
        try:
            found = pafs.FileSystem.from_uri(uri) if "://" in uri else (pafs.LocalFileSystem(), local)
        except (ValueError, OSError) as error:
            raise BundleError(
                f"{uri}: expected a local path or a URI such as s3://bucket/bundle, {error}."
            ) from error
        self.filesystem, self.path = found[0], str(found[1]).rstrip("/")

    def exists(self, name: str = "") -> bool:
        """Whether a file is there."""
        info = self.filesystem.get_file_info(f"{self.path}/{name}".rstrip("/"))
        return bool(info.type != pafs.FileType.NotFound)

    def files(self) -> list[str]:
        """Names of all files, sorted."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(i.path[len(self.path) + 1 :] for i in infos if i.type == pafs.FileType.File)

    def read_bytes(self, name: str) -> bytes:
        """Content of a file."""
        with self.filesystem.open_input_file(f"{self.path}/{name}") as stream:
            return bytes(stream.read())


class Manifest(BaseModel):
    """Version and hash of each file; written last."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = Field(ge=1)
    version: str
    files: dict[str, str]


def read_manifest(folder: ReadableFolder) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BundleError: There is none, it is damaged, or of another schema version.
    """
    where = f"{folder.path}/{MANIFEST}"
    if not folder.exists(MANIFEST):
        raise BundleError(f"{where}: expected a policy bundle, found none. Run `slatewise evaluate` first.")
    data = folder.read_bytes(MANIFEST)
    try:
        content = json.loads(data)
        found = content.get("schema_version") if isinstance(content, dict) else None
        if found != BUNDLE_SCHEMA:
            raise BundleError(
                f"{where}: expected schema version {BUNDLE_SCHEMA}, found {found}. "
                "Write the bundle again with this release."
            )
        manifest = Manifest.model_validate(content)
    except (ValidationError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{where}: expected a bundle's manifest, found a damaged one.") from error
    _same_names(where, set(manifest.files))
    if data != manifest_bytes(manifest.files):
        raise BundleError(
            f"{where}: expected the manifest as it was written, found another. Write the bundle again."
        )
    return manifest


def manifest_bytes(hashes: Mapping[str, str]) -> bytes:
    """The manifest of files with these hashes; every byte of it is determined."""
    manifest = Manifest(
        schema_version=BUNDLE_SCHEMA, version=bundle_version(hashes), files={n: hashes[n] for n in FILES}
    )
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def checked_files(folder: ReadableFolder, manifest: Manifest) -> dict[str, bytes]:
    """Content of every file, its hash compared.

    Raises:
        BundleError: A file is missing, unknown or changed; the message names it.
    """
    found = set(folder.files()) - {MANIFEST}
    _same_names(folder.path, found)
    content = {name: folder.read_bytes(name) for name in FILES}
    for name, data in content.items():
        if sha256(data) != manifest.files[name]:
            raise BundleError(
                f"{folder.path}/{name}: expected the content that {MANIFEST} lists, found another. "
                "The file was changed or damaged; write the bundle again."
            )
    return content


def _same_names(where: str, names: set[str]) -> None:
    for name in sorted(set(FILES) - names):
        raise BundleError(f"{where}: expected the file {name}, found none. Write the bundle again.")
    for name in sorted(names - set(FILES)):
        raise BundleError(f"{where}: expected only a bundle's files, found {name}. Remove it.")


def bundle_version(hashes: Mapping[str, str]) -> str:
    """Short hash over the files' hashes: equal content has equal versions."""
    return sha256(json.dumps(dict(hashes), sort_keys=True).encode())[:12]


def sha256(data: bytes) -> str:
    """Hash of a file's content, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
