import pytest
from pydantic import ValidationError

from encoders.columns import IngestConfig


def test_a_mapping_of_an_unknown_column_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"expected keys among user_id, .* got title; item text goes to"
    ):
        IngestConfig(columns={"title": "Description"})

    with pytest.raises(
        ValidationError, match=r"expected item text, got item_id; it is mapped in ingest.columns"
    ):
        IngestConfig(item_columns={"item_id": "sku"})


def test_required_sources_are_all_that_the_mapping_names() -> None:
    config = IngestConfig.model_validate(
        {
            "columns": {"user_id": "who", "value": "price"},
            "rules": [{"column": "quantity", "above": 0, "behaviour": "purchase"}],
            "item_columns": {"title": "name", "price": "price"},
        }
    )

    assert config.required_sources() == ["who", "item_id", "timestamp", "price", "quantity", "name"]
    assert "value" not in config.optional_sources()
    assert "propensity" in config.optional_sources()
