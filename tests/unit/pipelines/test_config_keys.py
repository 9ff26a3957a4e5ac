from typing import Any

import pytest
from pydantic import BaseModel

from pipelines.config import Config, load_config
from pipelines.config_keys import changed_values, describe_keys, override_text
from pipelines.registry import COMMANDS, ENTRIES


def test_defaults_change_nothing() -> None:
    assert changed_values(Config()) == {}


def test_changed_values_written_as_overrides_give_the_same_config() -> None:
    config = load_config(
        None,
        [
            "seed=4",
            "paths.run=a run/ü",
            "rl.tasks={buy: {behaviour: purchase, weight: 2}}",
            "ingest.columns={user_id: 'user name'}",
            "rl.ppo.learning_rate=3e-4",
            "rl.ppo.kl_target=0.5",
        ],
    )

    overrides = [override_text(key, value) for key, value in changed_values(config).items()]

    assert load_config(None, overrides) == config


def test_leaf_tells_default_and_description() -> None:
    assert list(describe_keys("rl.slate_length")) == [("rl.slate_length", "5", "Items shown at once, L.")]


def test_named_sections_show_their_own_keys() -> None:
    keys = [key for key, _, _ in describe_keys("rl.tasks")]

    assert keys[0] == "rl.tasks"
    assert "rl.tasks.NAME.weight" in keys


@pytest.mark.parametrize("entry", [*ENTRIES.values(), *COMMANDS.values()], ids=[*ENTRIES, *COMMANDS])
def test_sections_of_every_help_exist(entry: Any) -> None:
    for section in entry.sections:
        assert list(describe_keys(section))


def test_every_setting_has_a_description() -> None:
    def missing(model: type[BaseModel], prefix: str) -> list[str]:
        return [
            key
            for name in model.model_fields
            for key, _, description in describe_keys(f"{prefix}{name}")
            if not description
        ]

    assert missing(Config, "") == []
