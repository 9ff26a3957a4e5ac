"""Our encoder in one process a core, as the stage's actors run it, but without Ray."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH_TEXTS = 512
MAX_TOKENS = 128  # that every side reads of a text
CORES = len(os.sched_getaffinity(0))

_model = None


def _start(precision: str) -> None:
    import torch

    from encoders.language_model import LanguageModel
    from encoders.model_files import DEFAULT_MODEL, resolve_model

    global _model
    torch.set_num_threads(1)
    _model = LanguageModel(resolve_model(DEFAULT_MODEL), precision=precision)


def _encode(texts: Sequence[str]) -> NDArray[np.float32]:
    return _model.encode(texts).vectors


def _peak_mib(_: int) -> tuple[int, float]:
    status = Path("/proc/self/status").read_text()
    return os.getpid(), int(status.split("VmHWM:")[1].split()[0]) / 1024


class Workers:
    """Processes with the model loaded."""

    def __init__(self, count: int, precision: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _start, (precision,))
        self._count = count
        self.encode(["warm up"] * count * BATCH_TEXTS)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [B, D], by batches of like length, longest first."""
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        size = min(BATCH_TEXTS, max(1, len(texts) // (4 * self._count)))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        parts = list(self._pool.map(_encode, [[texts[row] for row in rows] for rows in batches]))
        vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
        for rows, part in zip(batches, parts, strict=True):
            vectors[rows] = part
        return vectors

    def encode_log(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same where texts repeat: each once."""
        place: dict[str, int] = {}
        rows = [place.setdefault(text, len(place)) for text in texts]
        return self.encode(list(place))[rows]

    def memory_mib(self) -> float:
        """Sum of the processes' peaks."""
        return sum(dict(self._pool.map(_peak_mib, range(8 * self._count))).values())

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()
