"""What must not be kept: raw ids, users who want to be forgotten, what is too rare to hide in."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from encoders.store import EmbeddingStore, Space, text_key, vector_column
from encoders.text import EMPTY_PAST
from pipelines.__main__ import main
from pipelines.artifacts import RunDirectory
from pipelines.config import load_config
from pipelines.ingest import INGEST
from pipelines.stages import run_stage
from tests.integration.test_ingest import behaviours, config, ingest, many_rows, write


def rows_listed(config_run: str) -> pl.DataFrame:
    return pl.read_parquet(f"{config_run}/ingest/rejected/*.parquet")


def test_what_is_rare_is_rejected_items_first(tmp_path: Path) -> None:
    rows = [
        ("a", "x"),
        ("b", "x"),
        ("c", "x"),
        ("a", "y"),
        ("b", "y"),
        ("c", "only"),
        ("c", "only"),
        ("d", "x"),
    ]
    text = "user_id,item_id,behaviour,timestamp\n"
    text += "".join(f"{user},{item},view,2020-01-0{day + 1}\n" for day, (user, item) in enumerate(rows))
    write(tmp_path, "log.csv", text)

    result = ingest(
        ours := config(
            tmp_path,
            "ingest.min_item_users=2",
            "ingest.min_user_behaviours=2",
            "ingest.max_rejected_fraction=0.9",
            "ingest.validation_fraction=0.25",
            "ingest.test_fraction=0.25",
            "ingest.user_shards=2",
        )
    )

    assert result["rows_rejected"] == {"rare_item": 2, "rare_user": 2}
    assert result["rows_kept"] == 4 and result["num_users"] == 2 and result["num_items"] == 2
    assert behaviours(ours).select("user_id", "item_id").sort("user_id", "item_id").rows() == [
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"),
    ]  # fmt: skip
    listed = rows_listed(ours.paths.run).sort("line").select("line", "reason").rows()
    assert listed == [(4, "rare_user"), (7, "rare_item"), (8, "rare_item"), (9, "rare_user")]
    assert result["num_sessions"] == sum(result["sessions"].values()) == 4


def embed_by_hand(run: RunDirectory) -> EmbeddingStore:
    """What the stage embed leaves, with vectors of ones: tables by session and user, and the store of texts."""
    from encoders.pasts import past_texts
    from encoders.text import item_text

    items = {row["item_id"]: item_text(row) for row in run.read_table("ingest/items.parquet").to_pylist()}
    texts = past_texts(pl.DataFrame(run.folder("ingest").read_table("behaviours")), items, 20)
    store = EmbeddingStore(run.filesystem, run.join("embeddings"), Space("0" * 64, "mean", "fp32", 8))
    distinct = sorted({*texts.sessions, *texts.users})
    store.append(
        [text_key(t) for t in distinct],
        np.ones((len(distinct), 2), np.float32),
        np.zeros(len(distinct), bool),
    )
    partial = run.partial("embed", "key")

    def table(column: str, ids: list[str]) -> pa.Table:
        return pa.table({column: ids, "embedding": vector_column(np.ones((len(ids), 2), np.float32))})

    partial.write_table("pasts.parquet", table("session_id", texts.session_ids))
    partial.write_table("users.parquet", table("user_id", texts.user_ids))
    partial.write_json("encoder.json", {"history_items": 20, "past_prompt": ""})
    run.publish("embed", partial, {"key": "k", "seconds": 0.0, "result": {}})
    return store


@pytest.mark.parametrize("key", [None, "secret"])
def test_a_forgotten_user_is_in_no_table_and_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str | None
) -> None:
    extra = ["ingest.pseudonym_key_env=SHOP_KEY"] if key else []
    monkeypatch.setenv("SHOP_KEY", "secret")
    write(tmp_path, "log.csv", many_rows() + "u1,i1,view,2021-01-01\nu10,i1,view,2021-01-02\n")
    before = ingest(ours := config(tmp_path, *extra))
    run = RunDirectory(ours.paths.run)
    store = embed_by_hand(run)
    (tmp_path / "run/train").mkdir()
    (tmp_path / "run/train/manifest.json").write_text(
        '{"schema_version": 1, "stage": "train", "files": {}, "result": {}}'
    )

    assert main(["forget", "u1", f"paths.run={ours.paths.run}", "--json"]) == 0

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    name = told["user"]
    assert (name == "u1") is (key is None)
    assert told["retrain"] == ["train"]
    assert {"ingest/behaviours/shard-00000.parquet": 6, "embed/users.parquet": 1}.items() <= told[
        "rows"
    ].items()
    for path in (tmp_path / "run").rglob("*.parquet"):
        columns = pl.read_parquet(path).select(pl.selectors.string())
        assert (
            not columns.select(pl.any_horizontal(pl.all().str.contains(rf"^{name}($|[@:])")).any())
            .to_series()
            .any()
        )
    after = run.manifest("ingest")
    assert after is not None
    counts = after["result"]
    assert counts["rows_forgotten"] == 6 and counts["num_users"] == before["num_users"] - 1
    assert counts["rows_in"] == counts["rows_kept"] + sum(counts["rows_rejected"].values()) + 6
    assert (
        counts["num_sessions"]
        == sum(counts["sessions"].values())
        == behaviours(ours)["session_id"].n_unique()
    )
    assert all(run.sha256(f"ingest/{n}") == e["sha256"] for n, e in after["files"].items())
    assert bool(store.missing([text_key(EMPTY_PAST)])[0]) is False
    assert run_stage(INGEST, ours)["skipped"]

    write(
        tmp_path,
        "more.csv",
        "user_id,item_id,behaviour,timestamp\nu1,i2,view,2021-02-01\nu2,i2,view,2021-02-01\n",
    )
    added = ingest(ours)
    assert added["rows_rejected"] == {"forgotten": 1}
    again = ingest(config(tmp_path, *extra, "ingest.session_gap_s=60"))
    assert again["rows_rejected"] == {"forgotten": 7}


def test_forget_needs_an_ingest_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forget", "u1", f"paths.run={tmp_path}/none"]) == 1
    assert "expected a finished ingest, found none" in capsys.readouterr().err
    monkeypatch.setenv("SHOP_KEY", "secret")
    write(tmp_path, "log.csv", many_rows())
    ingest(ours := config(tmp_path, "ingest.pseudonym_key_env=SHOP_KEY"))
    monkeypatch.delenv("SHOP_KEY")
    assert main(["forget", "u1", f"paths.run={ours.paths.run}"]) == 1
    assert "expected a key in the environment variable SHOP_KEY" in capsys.readouterr().err


def test_dry_run_guesses_and_says_what_it_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "when,Customer-ID,sku,action\n2020-01-01,7,A,pv\n2020-01-01,8,B,buy\n2020-01-02,9,B,odd\n"
    )

    assert main(["ingest", "--dry-run", f"paths.log={path}", f"paths.run={tmp_path}/run"]) == 0

    output = capsys.readouterr().out
    expected = {"user_id": "Customer-ID", "item_id": "sku", "behaviour": "action", "timestamp": "when"}
    assert f"'ingest.columns={json.dumps(expected)}'" in output
    assert '\'ingest.behaviours={"buy": "purchase", "pv": "view"}\'' in output
    assert "of the first 3 rows 2 are kept; rejected: unknown_behaviour 1" in output
    assert "behaviours that no task knows: odd" in output
    assert "  7 view A at 2020-01-01 00:00:00 UTC" in output
    assert not (tmp_path / "run").exists()
    load_config(None, [f"ingest.columns={json.dumps(expected)}"])
