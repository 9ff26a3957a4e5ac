"""The one typed config: YAML files and dotted overrides, joined from the sections of their owners."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.config import ClusterConfig
from encoders.columns import IngestConfig
from encoders.config import EncoderConfig, FinetuneConfig
from pipelines.shop.config import ShopConfig
from rl.config import RLConfig
from serve.config import ServeConfig

CONFIGS = Path(__file__).parent / "configs"


class ConfigError(ValueError):
    """A config file or override is missing, malformed or has an unknown or invalid key."""


class PathsConfig(BaseModel):
    """Where things lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(
        "runs/default", description="Run directory: a local path or a URI that pyarrow.fs opens."
    )
    log: str | None = Field(
        None, description="Behaviour log: a file, a folder or a glob; CSV(.gz), JSONL, Parquet."
    )
    items: str | None = Field(None, description="Item table; None takes items from the log's own columns.")


class Config(BaseModel):
    """Everything that can be set. One key space for YAML, command line and Tune."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Seed of every random draw.")
    paths: PathsConfig = PathsConfig()
    cluster: ClusterConfig = ClusterConfig()
    ingest: IngestConfig = IngestConfig()
    encoder: EncoderConfig = EncoderConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    rl: RLConfig = RLConfig()
    serve: ServeConfig = ServeConfig()
    shop: ShopConfig = ShopConfig()

    def value(self, key: str) -> Any:
        """The JSON value at a dotted key."""
        content: Any = self.model_dump(mode="json")
        for part in key.split("."):
            content = content[part]
        return content


def load_config(file: str | None = None, overrides: list[str] | None = None) -> Config:
    """Config from a YAML file and ``dotted.key=value`` overrides, the latter winning.

    ``file`` may name a shipped config (``rees46.yaml``) or a path.

    Raises:
        ConfigError: A file is missing or malformed, a key is unknown, or a value is invalid.
    """
    content = build_config(_read_yaml(file) if file else {}).model_dump(mode="json")
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override}: expected dotted.key=value. Write it as rl.ppo.num_iterations=50.")
        _assign(content, key.strip(), _parse_yaml(text, key))
    return build_config(content)


def build_config(content: dict[str, Any]) -> Config:
    """Config from nested plain values.

    Raises:
        ConfigError: A key is unknown or a value invalid; the message names the first of them.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_first_error(error)) from error


def override_config(config: Config, values: dict[str, Any]) -> Config:
    """A copy with values at dotted keys replaced, checked anew."""
    content = config.model_dump(mode="json")
    for key, value in values.items():
        _assign(content, key, value)
    return build_config(content)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in first["loc"][:-1]) or "the config"
        return f"{key}: expected a known key, got an unknown one. See `slatewise <stage> --help` for those of {parent}."
    message = re.sub(r"^(Value error|Assertion failed), ", "", str(first["msg"]))
    message = message[0].lower() + message[1:]
    return f"{key}: {message}, got {first['input']!r}."


def _read_yaml(file: str) -> dict[str, Any]:
    path = Path(file).expanduser()
    if not path.exists() and (CONFIGS / path.name).exists():
        path = CONFIGS / path.name
    if not path.is_file():
        shipped = ", ".join(sorted(p.name for p in CONFIGS.glob("*.yaml")))
        raise ConfigError(f"{file}: expected a YAML file, found none. Shipped ones: {shipped}.")
    content = _parse_yaml(path.read_text(encoding="utf-8"), file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of sections, got {type(content).__name__}.")
    return content


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: expected YAML, {' '.join(str(error).split())}.") from error


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        inner = content.get(part)
        if inner is None:
            inner = content[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: expected a section at {part!r}, got {inner!r}. Check the dotted key.")
        content = inner
    content[last] = value
