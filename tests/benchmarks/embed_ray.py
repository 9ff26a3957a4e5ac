"""What Ray Data adds to our encoder: seconds once, and its share in a job of ten minutes. Part of ``embed.py``."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from encoders.language_model import LanguageModel, choose_precision
from encoders.model_files import DEFAULT_MODEL, resolve_model
from encoders.store import Space
from pipelines.config import build_config
from pipelines.encode import encode_texts
from tests.benchmarks.embed_workers import CORES, MAX_TOKENS, Workers

TEN_MINUTES_S = 600.0
RAY_TURNS = 3


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_new_process(what: str, texts: Path) -> float:
    """Seconds of a part of this script in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.embed_ray", what, str(texts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def run_part(what: str, file: Path) -> float:
    """Seconds to embed the texts of a file in this new process, by Ray or without it."""
    texts = json.loads(file.read_text())
    files = resolve_model(DEFAULT_MODEL)
    if what == "plain":
        torch.set_num_threads(CORES)
        return timed(lambda: LanguageModel(files).encode(texts))
    with tempfile.TemporaryDirectory() as folder:
        config = build_config({"paths": {"run": folder}})
        space = Space(files.weights_sha256, "mean", choose_precision("auto", gpu=False), MAX_TOKENS)
        return timed(lambda: encode_texts(texts, config, space, folder))


def ray_figures(texts: Sequence[str]) -> dict[str, float]:
    """What Ray adds: seconds once to a job of a few texts, and its share in a job that takes ten minutes.

    Two jobs of like texts, one three times the other, tell what each further text costs and what starting all actors
    costs: with a start a core that is more than with the single actor of a few texts.
    """
    third = texts[::3]
    workers = Workers(CORES, choose_precision("auto", gpu=False))
    plain = []  # seconds; in turns with Ray's jobs, as a machine's speed changes by the minute
    jobs: dict[str, list[float]] = {"third": [], "whole": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, part in (("few", texts[:8]), ("third", third), ("whole", texts)):
            files[name] = Path(folder, f"{name}.json")
            files[name].write_text(json.dumps(list(part)))
        starts = [in_new_process("plain", files["few"]) for _ in range(RAY_TURNS)]
        fixed = statistics.median(in_new_process("ray", files["few"]) - start for start in starts)
        for _ in range(RAY_TURNS):
            plain.append(timed(lambda: workers.encode(texts)))
            for name, seconds in jobs.items():
                seconds.append(in_new_process("ray", files[name]))
    workers.close()
    whole = statistics.median(jobs["whole"])
    by_ray = (whole - statistics.median(jobs["third"])) / (len(texts) - len(third))  # seconds a text
    once = whole - by_ray * len(texts) - statistics.median(starts)
    pace = statistics.median(plain) / len(texts) / by_ray
    return {
        "ray_fixed_s": fixed,
        "ray_fixed_all_actors_s": once,
        "ray_slower": 1 - pace,
        "ray_overhead": 1 - pace * (TEN_MINUTES_S - once) / TEN_MINUTES_S,
    }


if __name__ == "__main__":
    print(run_part(sys.argv[1], Path(sys.argv[2])))
