from pathlib import Path

import polars as pl
import pytest

from encoders.columns import Format, IngestConfig
from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import find_files
from pipelines.ingest_items import finish_items, item_counts, items_from_counts, read_items, sum_counts


def test_the_most_frequent_value_wins_and_ties_go_by_text() -> None:
    rows = pl.DataFrame(
        {
            "item_id": ["i", "i", "i", "j", "j", "k"],
            "text:title": ["rare", "often", "often", "zebra", "ape", None],
            "text:price": ["1", "1", "2", "nan", "", "x"],
        }
    )
    batches = [item_counts(rows[:2], ["title", "price"]), item_counts(rows[2:], ["title", "price"])]

    items = items_from_counts(sum_counts(batches), ["title", "price"])

    assert items.rows() == [("i", "often", "1"), ("j", "ape", None), ("k", None, "x")]


def test_every_item_of_the_behaviours_gets_a_row_in_order_of_its_id() -> None:
    items = pl.DataFrame({"item_id": ["b", "a"], "price": ["2.5", "free"], "title": ["B", None]})

    table = finish_items(items, pl.Series("item_id", ["c", "a", "c"]))

    assert table.to_pydict() == {
        "item_id": ["a", "b", "c"],
        "title": [None, "B", None],
        "price": [None, 2.5, None],
    }
    assert [str(t) for t in table.schema.types] == ["string", "string", "float"]


def test_an_item_table_keeps_the_first_row_of_an_item(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("sku,name,unused\n1,one,x\n1,uno,x\n,none,x\n2,two,x\n")
    files = find_files(str(path), "paths.items", Format())

    items, rejected = read_items(files, IngestConfig(item_table_columns={"item_id": "sku", "title": "name"}))

    assert items.to_dicts() == [{"item_id": "1", "title": "one"}, {"item_id": "2", "title": "two"}]
    assert rejected == {"missing_item": 1, "duplicate": 1}


def test_an_item_table_without_ids_is_an_error_that_lists_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"sku": 1, "title": "one"}\n')

    with pytest.raises(
        ArtifactError, match=r"paths.items: expected a column 'item_id' in items.jsonl, found sku, title"
    ):
        read_items(find_files(str(path), "paths.items", Format()), IngestConfig())


def test_properties_in_rows_of_their_own_are_gathered_and_the_latest_holds(tmp_path: Path) -> None:
    path = tmp_path / "properties.csv"
    path.write_text("timestamp,itemid,property,value\n20,7,categoryid,new\n3,7,categoryid,old\n3,8,790,n5\n")
    config = IngestConfig.model_validate(
        {
            "item_properties": {"time": "timestamp"},
            "item_table_columns": {"item_id": "itemid", "category": "categoryid"},
        }
    )

    items, rejected = read_items(find_files(str(path), "paths.items", Format()), config)

    assert items.rows() == [("7", "new"), ("8", None)] or items.rows() == [("8", None), ("7", "new")]
    assert rejected == {}
