"""Pictures of the items, each file's content embedded once."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from encoders.store import EmbeddingStore, Space, picture_key
from encoders.text import IMAGE
from pipelines.artifacts import ArtifactError, open_filesystem
from pipelines.config import Config
from pipelines.encode import encode_pictures, read_pictures

CHUNK = 256  # files in memory at a time


@dataclass(frozen=True)
class Pictures:
    """What the items' pictures came to."""

    vectors: NDArray[np.float32]  # [N, D], 0 where an item has none or an unreadable one
    problems: dict[str, str]  # why a picture could not be read, by item id
    num_encoded: int


def embed_pictures(items: pa.Table, config: Config, space: Space, store_uri: str, width: int) -> Pictures:
    """Vectors of the files that the item table's column ``image`` names.

    A relative path starts from ``encoder.images``. A file that cannot be read stops nothing.
    """
    places = [_place(name, config.encoder.images) for name in items.column(IMAGE).to_pylist()]
    keys, unreadable = _keys([place for place in dict.fromkeys(places) if place is not None])
    one_place = {key: place for place, key in reversed(keys.items())}  # files of one content are one picture
    store = EmbeddingStore(*open_filesystem(store_uri), space)
    missing = store.missing(list(one_place))
    todo = [place for place, absent in zip(one_place.values(), missing, strict=True) if absent]
    undecodable = encode_pictures(todo, config, space, store_uri) if todo else {}
    bad = {keys[place]: reason for place, reason in undecodable.items()}
    found = store.read(list(one_place), width)
    absent = len(one_place) - int(found.present.sum()) - len(bad)
    if absent:
        raise ArtifactError(f"{store_uri}: expected all pictures, {absent} are missing. Run the stage again.")
    rows = {key: row for row, key in enumerate(one_place)}
    vectors = np.zeros((len(items), width), dtype=np.float32)
    problems: dict[str, str] = {}
    for item, (identity, place) in enumerate(zip(items.column("item_id").to_pylist(), places, strict=True)):
        if place is None:
            continue
        reason = unreadable.get(place) or bad.get(keys[place])
        if reason:
            problems[identity] = reason
        else:
            vectors[item] = found.vectors[rows[keys[place]]]
    return Pictures(vectors, problems, len(todo) - len(undecodable))


def _place(name: str | None, start: str | None) -> str | None:
    """Where a picture lies."""
    if not name:
        return None
    if start is None or "://" in name or name.startswith("/"):
        return name
    return f"{start.rstrip('/')}/{name}"


def _keys(places: list[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Content hash of each file, and why some cannot be read."""
    keys: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    for start in range(0, len(places), CHUNK):
        data, bad = read_pictures(places[start : start + CHUNK])
        keys |= {place: picture_key(content) for place, content in data.items()}
        problems |= bad
    return keys, problems
