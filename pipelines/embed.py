"""Stage ``embed``: items and pasts as texts, and the language model's vectors of them, each computed once."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from encoders.clip import is_clip, join_vectors
from encoders.config import EncoderConfig
from encoders.model_files import ModelFiles
from encoders.pasts import PastTexts, past_texts
from encoders.store import EmbeddingStore, Found, Space, text_key, vector_column
from encoders.text import EMPTY_PAST, IMAGE, item_text
from pipelines.artifacts import ArtifactError, Folder, open_filesystem
from pipelines.config import Config
from pipelines.embed_pictures import Pictures, embed_pictures
from pipelines.encode import encode_texts
from pipelines.ingest_base import shard_files
from pipelines.model import DECISIVE, find_model, prompts
from pipelines.stages import Stage, StageContext

logger = logging.getLogger(__name__)

STORE = "embeddings"  # folder of the run directory; it outlives the stage's own


@dataclass(frozen=True)
class Texts:
    """All that is to be embedded, prompts included."""

    item_ids: list[str]  # [N], in the order of ingest/items.parquet
    items: list[str]  # [N]
    pasts: PastTexts
    empty_past: str

    def distinct(self) -> list[str]:
        """Each text once, the empty past first."""
        return list(dict.fromkeys([self.empty_past, *self.items, *self.pasts.sessions, *self.pasts.users]))

    def __len__(self) -> int:
        return len(self.items) + len(self.pasts.sessions) + len(self.pasts.users)


def _embed(context: StageContext) -> dict[str, Any]:
    config = context.config.encoder
    files = find_model(config, context.run.uri)
    space, width = _space(config, files)
    texts = read_texts(context.input("ingest"), config, files)
    distinct = texts.distinct()
    keys = [text_key(text) for text in distinct]
    store_uri = config.store or _run_store(context)
    store = EmbeddingStore(*open_filesystem(store_uri), space)
    todo = [distinct[row] for row in np.flatnonzero(store.missing(keys))]
    problems = encode_texts(todo, context.config, space, store_uri) if todo else {}
    found = store.read(keys, width)
    pictures = _pictures(context, files, space, store_uri, width)
    absent = len(distinct) - int(found.present.sum()) - len(problems)
    if absent:
        raise ArtifactError(
            f"{store_uri}: expected all embeddings, {absent} are missing. Run the stage again."
        )
    counts = {
        "num_texts": len(texts),
        "num_distinct": len(distinct),
        "num_cut": int(found.cut.sum()),
        "num_failed": _report(context.folder, texts, problems, pictures.problems if pictures else {}),
    }
    if pictures:
        counts["num_pictures"] = int(pictures.vectors.any(axis=1).sum())
    rows = dict(zip(distinct, range(len(distinct)), strict=True))
    _write(context.folder, texts, rows, found, pictures)
    context.folder.write_json(
        "encoder.json",
        {
            "model": files.name,
            "revision": files.revision,
            **asdict(space),
            "width": width,
            "history_items": config.history_items,
            **dict(zip(("item_prompt", "past_prompt"), prompts(config, files), strict=True)),
            "empty_past": found.vectors[0].tolist(),
            **counts,
        },
    )
    return {
        "num_items": len(texts.items),
        "num_sessions": len(texts.pasts.sessions),
        "num_users": len(texts.pasts.users),
        **counts,
        "num_encoded": len(todo) - len(problems) + (pictures.num_encoded if pictures else 0),
        "width": width,
    }


def _pictures(
    context: StageContext, files: ModelFiles, space: Space, store_uri: str, width: int
) -> Pictures | None:
    """The items' pictures, where the item table names some and the model reads them."""
    items = context.input("ingest").read_table("items.parquet")
    if IMAGE not in items.column_names or items.column(IMAGE).null_count == len(items):
        return None
    if not is_clip(files):
        logger.warning(
            "embed: the items have pictures, but %s reads only text. Set a CLIP model.", files.name
        )
        return None
    return embed_pictures(items, context.config, space, store_uri, width)


def _run_store(context: StageContext) -> str:
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


def read_texts(ingest: Folder, config: EncoderConfig, files: ModelFiles) -> Texts:
    """Texts of the items and pasts, a shard of users at a time."""
    item_prompt, past_prompt = prompts(config, files)
    table = ingest.read_table("items.parquet")
    item_ids: list[str] = table.column("item_id").to_pylist()
    items = [item_text(row) for row in table.to_pylist()]
    by_id = dict(zip(item_ids, items, strict=True))
    columns = ["user_id", "session_id", "item_id", "behaviour", "timestamp"]
    pasts = PastTexts([], [], [], [])
    for names in shard_files(ingest.folder("behaviours").files()).values():
        tables = [ingest.read_table(f"behaviours/{name}", columns=columns) for name in names]
        shard = pl.DataFrame(pa.concat_tables(tables))
        part = past_texts(shard, by_id, config.history_items)
        pasts.session_ids.extend(part.session_ids)
        pasts.sessions.extend(past_prompt + text for text in part.sessions)
        pasts.user_ids.extend(part.user_ids)
        pasts.users.extend(past_prompt + text for text in part.users)
    if len(set(pasts.user_ids)) < len(pasts.user_ids):
        raise ArtifactError(
            f"{ingest.join('behaviours')}: expected each user in one shard, got one in two. Ingest again."
        )
    return Texts(item_ids, [item_prompt + text for text in items], pasts, past_prompt + EMPTY_PAST)


def _report(folder: Folder, texts: Texts, problems: dict[str, str], unread: dict[str, str]) -> int:
    """Name what the model could not take in ``failed.parquet``, items' pictures too. Returns how many."""
    pasts = texts.pasts
    groups = {
        "item": zip(texts.item_ids, texts.items, strict=True),
        "session": zip(pasts.session_ids, pasts.sessions, strict=True),
        "user": zip(pasts.user_ids, pasts.users, strict=True),
    }
    rows = [
        {"kind": kind, "id": identity, "reason": problems[text], "text": text}
        for kind, group in groups.items()
        for identity, text in group
        if text in problems
    ]
    rows += [{"kind": "picture", "id": item, "reason": reason, "text": ""} for item, reason in unread.items()]
    schema = pa.schema([(name, pa.string()) for name in ("kind", "id", "reason", "text")])
    folder.write_table("failed.parquet", pa.Table.from_pylist(rows, schema=schema))
    if rows:
        logger.warning(
            "embed: %d texts or pictures could not be embedded and count as unknown, the first is of %s %s: %s (%s)",
            len(rows),
            rows[0]["kind"],
            rows[0]["id"],
            rows[0]["reason"],
            folder.join("failed.parquet").replace(folder.path, "embed"),
        )
    return len(rows)


def _write(
    folder: Folder, texts: Texts, rows: dict[str, int], found: Found, pictures: Pictures | None
) -> None:
    """The stage's tables: identities with their vectors, uncompressed, so that readers map them into memory."""

    def vectors_of(texts: list[str]) -> NDArray[np.float32]:
        return found.vectors[np.array([rows[text] for text in texts], dtype=np.int64)]  # [B, D]

    def write(name: str, column: str, ids: list[str], vectors: NDArray[np.float32]) -> None:
        table = pa.table({column: pa.array(ids, pa.string()), "embedding": vector_column(vectors)})
        folder.write_table(name, table, compression="none")

    pasts = texts.pasts
    items = vectors_of(texts.items)
    items = join_vectors(items, pictures.vectors) if pictures else items
    write("items.parquet", "item_id", texts.item_ids, items)
    write("pasts.parquet", "session_id", pasts.session_ids, vectors_of(pasts.sessions))
    write("users.parquet", "user_id", pasts.user_ids, vectors_of(pasts.users))


def _fingerprint(config: Config) -> dict[str, str]:
    return {"weights_sha256": find_model(config.encoder, config.paths.run).weights_sha256}


EMBED = Stage(
    name="embed",
    inputs=("ingest",),
    sections=tuple(f"encoder.{name}" for name in DECISIVE),
    execute=_embed,
    help="Embed items and users' pasts with a language model.",
    fingerprint=_fingerprint,
)
