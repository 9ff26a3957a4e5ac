"""Stage ``embed``: items and pasts as texts, and the language model's vectors of them, by Ray Data."""

import logging
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from cluster.connection import connect
from encoders.config import EncoderConfig
from encoders.model_files import ModelError, ModelFiles, resolve_model
from encoders.pasts import PastTexts, past_texts
from encoders.store import EmbeddingStore, Found, Space, text_key, vector_column
from encoders.text import EMPTY_PAST, item_text
from pipelines.artifacts import ArtifactError, Folder, open_filesystem
from pipelines.config import Config
from pipelines.progress import track
from pipelines.stages import Stage, StageContext

STORE = "embeddings"  # folder of the run directory; it outlives the stage's own
BATCH_TEXTS = 512  # texts a shard of the store: what an interruption may cost an actor
BLOCKS_AN_ACTOR = 8  # few and large, yet enough that actors end together


@dataclass(frozen=True)
class _Texts:
    """All that is to be embedded."""

    item_ids: list[str]  # [N], in the order of ingest/items.parquet
    items: list[str]  # [N]
    pasts: PastTexts

    def distinct(self) -> list[str]:
        """Each text once, the empty past first."""
        return list(dict.fromkeys([EMPTY_PAST, *self.items, *self.pasts.sessions, *self.pasts.users]))

    def __len__(self) -> int:
        return len(self.items) + len(self.pasts.sessions) + len(self.pasts.users)


def _embed(context: StageContext) -> dict[str, Any]:
    config = context.config.encoder
    files = resolve_model(config.model)
    space, width = _space(config, files)
    texts = _read_texts(context.input("ingest"), config.history_items)
    distinct = texts.distinct()
    keys = [text_key(text) for text in distinct]
    store_path = context.run.join(STORE)
    store = EmbeddingStore(context.run.filesystem, store_path, space)
    todo = [distinct[row] for row in np.flatnonzero(store.missing(keys))]
    if todo:
        _encode(todo, context.config, space, _store_uri(context))
    found = store.read(keys, width)
    if not found.present.all():
        absent = int((~found.present).sum())
        raise ArtifactError(
            f"{store_path}: expected all embeddings, {absent} are missing. Run the stage again."
        )
    counts = {"num_texts": len(texts), "num_distinct": len(distinct), "num_cut": int(found.cut.sum())}
    _write(context.folder, texts, dict(zip(distinct, range(len(distinct)), strict=True)), found)
    context.folder.write_json(
        "encoder.json",
        {
            "model": config.model,
            "revision": files.revision,
            **asdict(space),
            "width": width,
            "history_items": config.history_items,
            "empty_past": found.vectors[0].tolist(),
            **counts,
        },
    )
    return {
        "num_items": len(texts.items),
        "num_sessions": len(texts.pasts.sessions),
        "num_users": len(texts.pasts.users),
        **counts,
        "num_encoded": len(todo),
        "width": width,
    }


def _store_uri(context: StageContext) -> str:
    """The store's place as workers open it, who may run in another directory."""
    run = context.run
    return f"{run.uri.rstrip('/')}/{STORE}" if "://" in run.uri else run.join(STORE)


def _space(config: EncoderConfig, files: ModelFiles) -> tuple[Space, int]:
    """The space of the vectors, ``auto`` resolved here so that all actors do the same, and their width."""
    from encoders.language_model import choose_pooling, choose_precision, model_width

    space = Space(
        weights_sha256=files.weights_sha256,
        pooling=choose_pooling(config.pooling, files),
        precision=choose_precision(config.precision, gpu=config.num_gpus > 0),
        max_tokens=config.max_tokens,
    )
    return space, model_width(files)


def _read_texts(ingest: Folder, history_items: int) -> _Texts:
    """Texts of the items and pasts, a shard of users at a time."""
    table = ingest.read_table("items.parquet")
    item_ids: list[str] = table.column("item_id").to_pylist()
    items = [item_text(row) for row in table.to_pylist()]
    by_id = dict(zip(item_ids, items, strict=True))
    columns = ["user_id", "session_id", "item_id", "behaviour", "timestamp"]
    pasts = PastTexts([], [], [], [])
    for name in ingest.folder("behaviours").files():
        shard = pl.DataFrame(ingest.read_table(f"behaviours/{name}", columns=columns))
        part = past_texts(shard, by_id, history_items)
        pasts.session_ids.extend(part.session_ids)
        pasts.sessions.extend(part.sessions)
        pasts.user_ids.extend(part.user_ids)
        pasts.users.extend(part.users)
    if len(set(pasts.user_ids)) < len(pasts.user_ids):
        raise ArtifactError(
            f"{ingest.join('behaviours')}: expected each user in one shard, got one in two. Ingest again."
        )
    return _Texts(item_ids, items, pasts)


def _encode(texts: list[str], config: Config, space: Space, store_uri: str) -> None:
    """Encode texts into the store with a pool of actors. What is done stays done if this is interrupted.

    Raises:
        ModelError: An actor found no model, or other weights than this process has.
    """
    with connect(config.cluster):
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns of bars being off
        encoder = config.encoder
        largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
        num_cpus = max(1, min(encoder.num_cpus, largest))
        blocks = _blocks(texts, encoder.num_actors)
        done = ray.data.from_arrow(blocks).map_batches(
            EncodeTexts,
            fn_constructor_args=(encoder, space, store_uri, num_cpus),
            batch_size=BATCH_TEXTS,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=encoder.num_actors),
            num_cpus=num_cpus,
            num_gpus=encoder.num_gpus or None,
        )
        try:
            batches = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for _ in track(batches, len(blocks), "texts encoded, blocks"):
                pass
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


def _blocks(texts: list[str], num_actors: int) -> list[pa.Table]:
    """Tables of texts of like length, longest first: little padding, and actors end together."""
    ordered = sorted(texts, key=len, reverse=True)
    batches = math.ceil(len(ordered) / BATCH_TEXTS)
    rows = BATCH_TEXTS * math.ceil(batches / (num_actors * BLOCKS_AN_ACTOR))
    starts = range(0, len(ordered), rows)
    return [pa.table({"text": pa.array(ordered[start : start + rows], pa.string())}) for start in starts]


def _cause(error: Exception) -> Exception:
    """The model's error inside an actor, else Ray's own. Of an actor that died at its start only the text is left."""
    found = re.search(r"ModelError: (.+)", str(error))
    return ModelError(found.group(1)) if found else error


class EncodeTexts:
    """A Ray Data actor: the model in memory, its vectors written to the store as they come."""

    def __init__(self, config: EncoderConfig, space: Space, store_uri: str, num_threads: int) -> None:
        import torch

        from encoders.language_model import LanguageModel

        torch.set_num_threads(num_threads)
        files = resolve_model(config.model)
        if files.weights_sha256 != space.weights_sha256:
            raise ModelError(
                f"encoder.model: expected weights {space.weights_sha256[:16]} on every host, got "
                f"{files.weights_sha256[:16]} in {files.directory}. Install the same model there."
            )
        self._model = LanguageModel(
            files,
            pooling=space.pooling,
            precision=space.precision,
            max_tokens=space.max_tokens,
            batch_tokens=config.batch_tokens,
            device="cuda" if config.num_gpus > 0 else "cpu",
        )
        self._store = EmbeddingStore(*open_filesystem(store_uri), space)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch of texts. Returns their number; the vectors are in the store."""
        texts: list[str] = batch.column("text").to_pylist()
        encoded = self._model.encode(texts)
        self._store.append([text_key(text) for text in texts], encoded.vectors, encoded.cut)
        return pa.table({"num_texts": [len(texts)]})


def _write(folder: Folder, texts: _Texts, rows: dict[str, int], found: Found) -> None:
    """The stage's tables: identities with their vectors."""

    def table(column: str, ids: list[str], of: list[str]) -> pa.Table:
        places = np.array([rows[text] for text in of], dtype=np.int64)  # [B]
        vectors: NDArray[np.float32] = found.vectors[places]  # [B, D]
        return pa.table({column: pa.array(ids, pa.string()), "embedding": vector_column(vectors)})

    pasts = texts.pasts
    folder.write_table("items.parquet", table("item_id", texts.item_ids, texts.items))
    folder.write_table("pasts.parquet", table("session_id", pasts.session_ids, pasts.sessions))
    folder.write_table("users.parquet", table("user_id", pasts.user_ids, pasts.users))


def _fingerprint(config: Config) -> dict[str, str]:
    return {"weights_sha256": resolve_model(config.encoder.model).weights_sha256}


EMBED = Stage(
    name="embed",
    inputs=("ingest",),
    sections=("encoder",),
    execute=_embed,
    help="Embed items and users' pasts with a language model.",
    fingerprint=_fingerprint,
)
