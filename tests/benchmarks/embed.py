"""Texts to vectors: ours against sentence-transformers' ``encode``, what Ray adds, what each precision costs.

    python -m tests.benchmarks.embed [--texts 20000] [--only speed] [--quick]

The texts are the items and pasts of a made-up shop's log, in its order. Both sides take the same model, cut at 128
tokens, and use all cores: the rival one process with a thread a core, at the batch size that was fastest on a sample;
ours one process of one thread a core, as the stage's actors are. They take turns, chunk by chunk. A pool of
processes, which ``encode`` can also be given, is shown beside it on the sample. Where there is a GPU, a MiniLM and a
decoder with random weights run there too. The last line is one JSON object of figures.
"""

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.config import Precision
from encoders.language_model import choose_precision
from encoders.model_files import DEFAULT_MODEL, resolve_model
from encoders.pasts import past_texts
from encoders.store import EmbeddingStore, Space, text_key
from encoders.text import item_text
from pipelines.shop.config import ShopConfig
from pipelines.shop.logging_policy import make_shop
from tests.benchmarks.embed_gpu import gpu_figures
from tests.benchmarks.embed_ray import ray_figures
from tests.benchmarks.embed_workers import CORES, MAX_TOKENS, Workers

CHUNKS = 4


def log_texts(count: int) -> list[str]:
    """Texts that a log of a made-up shop gives the language model, duplicates included."""
    shop = make_shop(ShopConfig(num_sessions=max(50, int(count * 0.8)), num_users=max(20, count // 4)), 0)
    items = {row["item_id"]: item_text(row) for row in shop.world.table.to_dicts()}
    pasts = past_texts(shop.behaviours, items, 20)
    return [*items.values(), *pasts.sessions, *pasts.users][:count]


def count_tokens(texts: Sequence[str]) -> NDArray[np.int64]:
    """Tokens of each text, as both sides read it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(resolve_model(DEFAULT_MODEL).directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))])


def flops(tokens: NDArray[np.int64]) -> float:
    """Multiplications and additions of MiniLM's matrix products on texts of these lengths."""
    layers, width, wide = 6, 384, 1536
    a_token = 2 * (4 * width * width + 2 * width * wide)
    return float(layers * (a_token * tokens.sum() + 4 * width * (tokens.astype(np.float64) ** 2).sum()))


def matmul_limit(dtype: torch.dtype) -> float:
    """Flops a second of the fastest of the model's own matrix products, on all cores."""
    best = 0.0
    for rows, inner, columns in ((1024, 384, 1536), (2048, 1536, 384), (4096, 384, 1536)):
        left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        for _ in range(3):
            left @ right.T
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 0.5:
            left @ right.T
            count += 1
        best = max(best, 2 * rows * inner * columns * count / (time.perf_counter() - started))
    return best


class Rival:
    """sentence-transformers."""

    def __init__(self, sample: Sequence[str]) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(resolve_model(DEFAULT_MODEL).directory), device="cpu")
        self.model.max_seq_length = MAX_TOKENS
        self.model.encode(list(sample[:16]))
        rates = {size: self._rate(sample, size) for size in (8, 16, 32, 64)}
        self.batch_size = max(rates, key=lambda size: rates[size])
        self.sample_rate = rates[self.batch_size]

    def _rate(self, sample: Sequence[str], batch_size: int) -> float:
        return len(sample) / timed(lambda: self.model.encode(list(sample), batch_size=batch_size))[0]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [B, D]."""
        return np.asarray(self.model.encode(list(texts), batch_size=self.batch_size))

    def pool_rate(self, sample: Sequence[str]) -> float:
        """Texts a second of ``encode`` with one process a core, its start left out."""
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that start now
        pool = self.model.start_multi_process_pool(["cpu"] * CORES)
        try:
            self.model.encode(list(sample[: 8 * CORES]), pool=pool, batch_size=self.batch_size)  # models load
            size = max(1, len(sample) // (4 * CORES))
            call = lambda: self.model.encode(  # noqa: E731
                list(sample), pool=pool, batch_size=self.batch_size, chunk_size=size
            )
            return len(sample) / timed(call)[0]
        finally:
            self.model.stop_multi_process_pool(pool)
            os.environ["OMP_NUM_THREADS"] = str(CORES)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came back."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def take_turns(
    ways: dict[str, Callable[[Sequence[str]], NDArray[np.float32]]], texts: dict[str, Sequence[str]]
) -> tuple[dict[str, float], dict[str, NDArray[np.float32]]]:
    """Run each way on its texts, a chunk at a time by turns. Returns seconds and vectors by way."""
    seconds: dict[str, float] = dict.fromkeys(ways, 0.0)
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ways}
    for chunk in range(CHUNKS):
        for name, way in ways.items():
            spent, part = timed(functools.partial(way, texts[name][chunk::CHUNKS]))
            seconds[name] += spent
            vectors[name].append(part)
    whole = {}
    for name, parts in vectors.items():
        whole[name] = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
        for chunk, part in enumerate(parts):
            whole[name][chunk::CHUNKS] = part
    return seconds, whole


def quality(vectors: NDArray[np.float32], exact: NDArray[np.float32]) -> dict[str, float]:
    """Cosine to the exact vectors, and the share of each text's ten nearest neighbours that is kept."""
    cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    near = [neighbours(of[:4000]) for of in (vectors, exact)]
    kept = [len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]
    return {"least": float(cosine.min()), "mean": float(cosine.mean()), "kept": statistics.fmean(kept)}


def neighbours(vectors: NDArray[np.float32]) -> list[list[int]]:
    """The ten nearest other rows of each row."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argpartition(-scores, 10, axis=1)[:, :10].tolist()
    return nearest


def store_seconds(count: int) -> float:
    """Seconds to load that many vectors, in an order of their own, from a store of many shards."""
    import pyarrow.fs as pafs

    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(
            pafs.LocalFileSystem(use_mmap=True), folder, Space("0" * 64, "mean", "bf16", 1)
        )
        keys = [text_key(str(number)) for number in range(count)]
        vectors = np.random.default_rng(0).standard_normal((512, 384), dtype=np.float32)
        for start in range(0, count, 512):
            size = min(512, count - start)
            store.append(keys[start : start + size], vectors[:size], np.zeros(size, np.bool_))
        order = np.random.default_rng(1).permutation(count)
        mixed = [keys[place] for place in order]
        seconds, found = timed(lambda: store.read(mixed, 384))
        assert (found.vectors[:100] == vectors[order[:100] % 512]).all()
        return float(seconds)


def speed_figures(num_texts: int, quick: bool) -> dict[str, float]:
    """Rates, quality and memory of both sides; prints the table."""
    log = log_texts(num_texts)
    distinct = list(dict.fromkeys(log))
    sample = distinct[:: max(1, len(distinct) // (64 if quick else 512))]
    precision = choose_precision("auto", gpu=False)
    rival = Rival(sample)
    exact, fast = (Workers(CORES, kind) for kind in ("fp32", precision))
    ways = {"encode": rival.encode, "ours fp32": exact.encode, "ours default": fast.encode}
    ways |= {"encode, log": rival.encode, "ours, log": fast.encode_log}
    texts = {name: log if name.endswith("log") else distinct for name in ways}
    seconds, vectors = take_turns(ways, texts)
    figures = {
        "embed_vs_encode_fp32": seconds["encode"] / seconds["ours fp32"],
        "embed_vs_encode_distinct": seconds["encode"] / seconds["ours default"],
        "embed_vs_encode_log": seconds["encode, log"] / seconds["ours, log"],
        "memory_mib": fast.memory_mib(),
        "encode_memory_mib": peak_mib(),
    }
    fast.close()
    exact.close()
    print(
        f"{len(log)} texts of a log, {len(distinct)} distinct, {CORES} cores, rival's batch size {rival.batch_size}"
    )
    for name in ("encode, log", "ours, log"):
        print(f"{name:14}{len(log) / seconds[name]:9.1f} texts/s")
    kinds: dict[str, Precision] = {"encode": "fp32", "ours fp32": "fp32", "ours default": precision}
    figures |= table_figures(kinds, count_tokens(distinct), seconds, vectors)
    return figures | {"encode_pool_vs_encode": rival.pool_rate(sample) / rival.sample_rate}


def table_figures(
    kinds: dict[str, Precision],
    tokens: NDArray[np.int64],
    seconds: dict[str, float],
    vectors: dict[str, NDArray[np.float32]],
) -> dict[str, float]:
    """Rates, shares of the machine's limit and quality by way, printed as a table too."""
    limits = {"fp32": matmul_limit(torch.float32), "bf16": matmul_limit(torch.bfloat16)}
    figures = {f"matmul_gflop_s_{kind}": limit / 1e9 for kind, limit in limits.items()}
    print(
        f"{'way':22}{'texts/s':>9}{'tokens/s':>10}{'of the matmul limit':>21}{'least cosine':>14}{'mean':>9}{'kept':>7}"
    )
    for name, kind in kinds.items():
        rates = (len(tokens) / seconds[name], tokens.sum() / seconds[name])
        share = flops(tokens) / seconds[name] / limits[kind]
        near = quality(vectors[name], vectors["encode"])
        print(
            f"{f'{name} ({kind})':22}{rates[0]:9.1f}{rates[1]:10.0f}{share:21.2f}"
            f"{near['least']:14.5f}{near['mean']:9.5f}{near['kept']:7.3f}",
            flush=True,
        )
        found = {"texts_s": rates[0], "tokens_s": rates[1], "matmul_share": share, **near}
        figures |= {f"{name.replace(' ', '_')}_{part}": float(value) for part, value in found.items()}
    return figures


def measure(only: str | None, num_texts: int, quick: bool) -> dict[str, float]:
    """The figures of one part, or of all."""
    torch.set_num_threads(CORES)
    count = 10_000 if quick else 1_000_000
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "speed": lambda: speed_figures(num_texts, quick),
        "ray": lambda: ray_figures(list(dict.fromkeys(log_texts(num_texts)))[: 64 if quick else 6144]),
        "store": lambda: {f"store_load_{count}_s": store_seconds(count)},
        "gpu": lambda: gpu_figures(quick),
    }
    figures: dict[str, float] = {}
    for name, part in parts.items():
        if only in (None, name):
            figures |= part()
    return figures


def peak_mib() -> float:
    """Peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=20_000, help="texts of the log")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run on few texts; its figures mean nothing"
    )
    parser.add_argument("--only", choices=("speed", "ray", "store", "gpu"), help="one part; all if left out")
    options = parser.parse_args()
    figures = measure(options.only, 400 if options.quick else options.texts, options.quick)
    for name, value in figures.items():
        print(f"{name:34}{value:12.4g}")
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
