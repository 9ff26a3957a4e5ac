"""The shipped mappings, on lines written by hand and on the real logs where they are there."""

from pathlib import Path

import polars as pl
import pytest

from tests.integration.test_ingest import behaviours, config, ingest, write

DATA = Path(__file__).parents[3] / "shared" / "data"


REES46 = """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,1,9,appliances.kitchen.washer,aqua,33.20,10,s1
2019-10-01 00:00:09 UTC,cart,1,9,appliances.kitchen.washer,aqua,33.20,10,s1
2019-10-01 00:01:00 UTC,purchase,1,9,appliances.kitchen.washer,,34.00,10,s1
2019-10-01 00:01:00 UTC,remove_from_cart,1,9,appliances.kitchen.washer,aqua,33.20,10,s1
2019-10-01 02:00:00 UTC,view,2,9,,,5.00,11,s2
2019-10-01 03:00:00 UTC,view,2,9,,,5.00,12,s3
"""


def test_rees46_mapping_on_hand_written_lines(tmp_path: Path) -> None:
    write(tmp_path, "log.csv", REES46)

    result = ingest(
        ours := config(
            tmp_path, "ingest.validation_fraction=0.3", "ingest.test_fraction=0.3", file="rees46.yaml"
        )
    )

    assert result["rows_rejected"] == {"unknown_behaviour": 1}
    assert result["sessions"] == {"train": 1, "validation": 1, "test": 1}
    assert behaviours(ours).filter(pl.col("user_id") == "10").select(
        "session_id", "behaviour", "value"
    ).rows() == [
        ("10:s1", "view", pytest.approx(33.2)),
        ("10:s1", "cart", pytest.approx(33.2)),
        ("10:s1", "purchase", 34.0),
    ]
    assert pl.read_parquet(f"{ours.paths.run}/ingest/items.parquet").rows() == [
        ("1", "appliances.kitchen.washer", "aqua", pytest.approx(33.2)),
        ("2", None, None, 5.0),
    ]


UCI = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
536366,71053,"LANTERN, METAL",6,2010-12-01 09:30:00,3.39,17850.0,United Kingdom
C536379,71053,"LANTERN, METAL",-1,2011-07-01 09:41:00,3.39,17850.0,United Kingdom
536370,POST,POSTAGE,3,2010-12-01 08:45:00,18.00,12583.0,France
536371,22086,CHAIN,80,2010-12-01 09:00:00,2.55,,United Kingdom
536372,22086,CHAIN,80,2011-12-01 09:00:00,2.55,12583.0,France
536373,22086,damaged,-80,2011-12-01 09:01:00,0.0,12583.0,France
536374,22086,CHAIN,80,2011-12-02 09:00:00,2.55,12584.0,France
"""


def test_uci_mapping_on_hand_written_lines(tmp_path: Path) -> None:
    write(tmp_path, "log.csv", UCI)
    shares = [
        "ingest.validation_fraction=0.3",
        "ingest.test_fraction=0.3",
        "ingest.max_rejected_fraction=0.5",
    ]

    result = ingest(ours := config(tmp_path, *shares, file="uci_retail.yaml"))

    assert result["rows_rejected"] == {"filtered": 1, "missing_user": 1, "unknown_behaviour": 1}
    assert result["num_sessions"] == 4
    frame = behaviours(ours).filter(pl.col("user_id") == "17850.0")
    assert frame["behaviour"].to_list() == ["purchase", "purchase", "return"]
    assert frame["session_id"].to_list() == ["17850.0@20101201T082600"] * 2 + ["17850.0@20110701T084100"]
    titles = dict(
        pl.read_parquet(f"{ours.paths.run}/ingest/items.parquet").select("item_id", "title").iter_rows()
    )
    assert titles == {"22086": "CHAIN", "71053": "LANTERN, METAL", "85123A": "WHITE HEART"}


@pytest.mark.parametrize(
    ("file", "log", "expected"),
    [
        (
            "rees46.yaml",
            "rees46/2019-Oct-head.csv.gz",
            {"rows_in": 17_435, "num_users": 4_505, "num_items": 6_493},
        ),
        (
            "uci_retail.yaml",
            "uci_online_retail/online_retail.csv.gz",
            {"rows_in": 541_909, "num_items": 3_676},
        ),
    ],
)
def test_real_logs(tmp_path: Path, file: str, log: str, expected: dict[str, int]) -> None:
    if not (DATA / log).exists():
        pytest.skip(f"needs {DATA / log}, which is no part of the repository")

    result = ingest(config(tmp_path, f"paths.log={DATA / log}", file=file))

    assert expected.items() <= result.items()
    assert result["rows_in"] == result["rows_kept"] + sum(result["rows_rejected"].values())
    assert sum(result["sessions"].values()) == result["num_sessions"]
