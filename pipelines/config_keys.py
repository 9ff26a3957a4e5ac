"""Config keys as text: what a section offers, and what a config changes."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.config import Config


def describe_keys(section: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and description of all settings at or below a dotted key, in the order of their owners.

    Raises:
        KeyError: There is no such key.
    """
    model: type[BaseModel] = Config
    field: FieldInfo | None = None
    for part in section.split("."):
        field = model.model_fields[part]
        model = _section(field.annotation) or model
    assert field is not None
    yield from _describe(section, field)


def _describe(key: str, field: FieldInfo) -> Iterator[tuple[str, str, str]]:
    section = _section(field.annotation)
    named = _named_sections(field.annotation)
    if section is None:
        default = field.get_default(call_default_factory=True)
        shown = ", ".join(default) if named and default else _text(default)
        yield key, shown, field.description or ""
    inner = section or named
    if inner is not None:
        for name, child in inner.model_fields.items():
            yield from _describe(f"{key}.{name}" if section else f"{key}.NAME.{name}", child)


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _named_sections(annotation: Any) -> type[BaseModel] | None:
    """The section that each name of a ``dict[str, Section]`` has."""
    if get_origin(annotation) is not dict:
        return None
    return _section(get_args(annotation)[1])


def changed_values(config: Config) -> dict[str, Any]:
    """What differs from the defaults, as JSON values by dotted key. Mappings with free keys are given whole."""
    return dict(_changed("", config, config.model_dump(mode="json"), Config().model_dump(mode="json")))


def _changed(
    prefix: str, model: BaseModel, values: dict[str, Any], defaults: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        child = getattr(model, name)
        if isinstance(child, BaseModel) and defaults[name] is not None:
            yield from _changed(f"{prefix}{name}.", child, value, defaults[name])
        elif value != defaults[name]:
            yield prefix + name, value


def override_text(key: str, value: Any) -> str:
    """``dotted.key=value`` that ``load_config`` reads back as the same value."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
