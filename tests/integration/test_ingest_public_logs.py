"""The mappings of public logs, on hand-written lines in each log's own format, and on real ones where they are."""

from pathlib import Path

import polars as pl
import pytest

from pipelines.config import Config, load_config
from pipelines.ingest import INGEST
from pipelines.stages import run_stage
from tests.integration.test_ingest import behaviours
from tests.integration.test_ingest_mappings import DATA

DAY = 86_400
SHARES = [
    "ingest.validation_fraction=0.3",
    "ingest.test_fraction=0.3",
    "rl.slate_length=2",
    "cluster.num_cpus=1",
]


def ingest(tmp_path: Path, file: str, log: str, items: str | None = None, *extra: str) -> tuple[Config, dict]:  # type: ignore[type-arg]
    paths = [f"paths.run={tmp_path}/run", f"paths.log={tmp_path}/{log}", *SHARES, *extra]
    config = load_config(file, [*paths, *([f"paths.items={tmp_path}/{items}"] if items else [])])
    return config, run_stage(INGEST, config)["result"]


def rows_of(config: Config, user: str, *columns: str) -> list[tuple[object, ...]]:
    return behaviours(config).filter(pl.col("user_id") == user).select(columns).rows()


def items_of(config: Config) -> list[tuple[object, ...]]:
    return pl.read_parquet(f"{config.paths.run}/ingest/items.parquet").rows()


def test_retailrocket(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433221339117,257597,addtocart,355908,\n"
        "1433221999827,257597,transaction,355908,4000\n"
        "1433321999827,7,view,248676,\n"
        "1433421999827,8,view,248676,\n"
    )
    (tmp_path / "item_properties_part1.csv").write_text(
        "timestamp,itemid,property,value\n"
        "1435460400000,355908,categoryid,1338\n"
        "1441508400000,248676,888,1116713 960601 n277.200\n"
        "1434250800000,355908,categoryid,209\n"
        "1431226800000,248676,available,1\n"
    )

    config, result = ingest(tmp_path, "retailrocket.yaml", "events.csv", "item_properties_part*.csv")

    assert result["behaviours"] == {"cart": 1, "purchase": 1, "view": 3}
    assert items_of(config) == [("248676", None, "1"), ("355908", "1338", None)]


@pytest.mark.parametrize(
    ("file", "log", "items", "separator", "titles"),
    [
        (
            "movielens_100k.yaml",
            "u.data",
            "u.item",
            "\t",
            '242|Kolya (1996)|24-Jan-1997||http://us|{}\n302|Misérables, "Les" (1995)|||u|{}\n',
        ),
        (
            "movielens_1m.yaml",
            "ratings.dat",
            "movies.dat",
            "::",
            '242::Kolya (1996)::Comedy\n302::Misérables, "Les" (1995)::Drama|War\n',
        ),
    ],
)
def test_movielens(tmp_path: Path, file: str, log: str, items: str, separator: str, titles: str) -> None:
    ratings = [
        (196, 242, 3, 881250949),
        (196, 302, 5, 881250950),
        (22, 302, 4, 881350000),
        (7, 242, 1, 881450000),
    ]
    (tmp_path / log).write_text("".join(separator.join(map(str, row)) + "\n" for row in ratings))
    flags = "|".join("0" * 19)
    (tmp_path / items).write_bytes(titles.format(flags, flags).encode("latin-1"))

    config, result = ingest(tmp_path, file, log, items)

    assert (result["rows_in"], result["rows_kept"]) == (4, 4)
    assert result["behaviours"] == {"liked": 2, "loved": 1, "watched": 4}
    assert rows_of(config, "196", "item_id", "behaviour", "value") == [
        ("242", "watched", 3.0),
        ("302", "watched", 5.0),
        ("302", "liked", 5.0),
        ("302", "loved", 5.0),
    ]
    assert [row[:2] for row in items_of(config)] == [
        ("242", "Kolya (1996)"),
        ("302", 'Misérables, "Les" (1995)'),
    ]


def test_deskdrop(tmp_path: Path) -> None:
    (tmp_path / "users_interactions.csv").write_text(
        "timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry\n"
        "1465413032,VIEW,-3499919498720038879,-8845298781299428018,1264196770339959068,,,\n"
        '1465413046,COMMENT CREATED,-3499919498720038879,-8845298781299428018,1264196770339959068,"Mozilla, x",SP,BR\n'
        "1465513190,VIEW,310515487419366995,-1130272294246983140,2631864456530402479,,,\n"
        "1465613190,BOOKMARK,310515487419366995,5,4,,,\n"
    )
    (tmp_path / "shared_articles.csv").write_text(
        "timestamp,eventType,contentId,authorPersonId,authorSessionId,authorUserAgent,authorRegion,authorCountry,"
        "contentType,url,title,text,lang\n"
        '1459192779,CONTENT SHARED,-3499919498720038879,1,2,,,,HTML,http://a,"Ethereum, at last","All\nof it",en\n'
        "1459193988,CONTENT REMOVED,-3499919498720038879,1,2,,,,HTML,http://a,Gone,,en\n"
    )

    config, result = ingest(tmp_path, "deskdrop.yaml", "users_interactions.csv", "shared_articles.csv")

    assert result["behaviours"] == {"bookmark": 1, "comment": 1, "view": 2}
    assert ("-3499919498720038879", "Ethereum, at last", "All\nof it", "en") in items_of(config)
    assert rows_of(config, "-8845298781299428018", "session_id")[0] == (
        "-8845298781299428018:1264196770339959068",
    )


def test_mind(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text(
        "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N55689-0 N35729-1\n"
        "3\tU73700\t11/14/2019 7:01:48 AM\tN10732\t\n"
        "4\tU73700\t11/14/2019 7:02:48 AM\tN10732\tN20678-0\n"
    )
    (tmp_path / "news.tsv").write_text(
        'N55689\tsports\tnfl\tCharles Rogers "dead" at 38\tHe\'s gone\thttps://x\t[{"Label": "NFL"}]\t[]\n'
    )

    config, result = ingest(tmp_path, "mind.yaml", "behaviors.tsv", "news.tsv")

    assert (result["rows_in"], result["rows_kept"], result["rows_rejected"]) == (7, 6, {"missing_item": 1})
    assert result["behaviours"] == {"click": 2, "impression": 6}
    assert rows_of(config, "U13740", "item_id", "behaviour", "request_id", "position") == [
        ("N55689", "impression", "1", 0),
        ("N55689", "click", "1", None),
        ("N35729", "impression", "1", 1),
    ]
    assert behaviours(config)["timestamp"].min().isoformat() == "2019-11-11T09:05:58+00:00"  # type: ignore[union-attr]
    assert ("N55689", 'Charles Rogers "dead" at 38', "sports", "nfl", "He's gone") in items_of(config)


def test_open_bandit(tmp_path: Path) -> None:
    (tmp_path / "men.csv").write_text(
        ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3\n"
        "0,2019-11-24 00:00:23.000014+00:00,9,1,0,0.0294117,81ce,03a5,b358,c39b\n"
        "1,2019-11-24 00:00:23.000014+00:00,8,2,1,0.0294117,81ce,03a5,b358,c39b\n"
        "2,2019-11-25 00:00:25.000014+00:00,9,3,0,0.0294117,4f2c,2d03,b358,d9d9\n"
        "3,2019-11-26 00:00:25.000014+00:00,9,3,0,0,4f2c,2d03,b358,d9d9\n"
        "4,2019-11-27 00:00:25.000014+00:00,9,1,0,1,4f2c,2d03,b358,d9d9\n"
    )

    config, result = ingest(tmp_path, "open_bandit.yaml", "men.csv")

    assert result["rows_rejected"] == {"unreadable_number": 1}
    assert result["behaviours"] == {"click": 1, "impression": 4}
    columns = ("item_id", "behaviour", "request_id", "position", "propensity")
    assert rows_of(config, "81ce|03a5|b358|c39b", *columns) == [
        ("9", "impression", "men.csv:2", 0, 0.0294117),
        ("8", "impression", "men.csv:3", 1, 0.0294117),
        ("8", "click", "men.csv:3", None, None),
    ]


def test_open_bandit_as_it_is(tmp_path: Path) -> None:
    log = DATA / "open_bandit/random/men"
    if not (log / "men.csv.gz").exists():
        pytest.skip(f"needs {log}, which is no part of the repository")

    extra = [f"paths.log={log}/men.csv.gz", f"paths.items={log}/item_context.csv.gz", "rl.slate_length=3"]
    _, result = ingest(tmp_path, "open_bandit.yaml", "", None, *extra)

    assert (result["rows_in"], result["num_items"]) == (10_000, 34)
    assert result["behaviours"]["click"] == 46
    assert result["rows_kept"] == result["behaviours"]["impression"]


def test_taobao(tmp_path: Path) -> None:
    (tmp_path / "UserBehavior.csv").write_text(
        "1,2268318,2520377,pv,1511544070\n"
        "1,2268318,2520377,buy,1511544170\n"
        "2,2333346,2520771,fav,1511644070\n"
        "3,2333346,2520771,cart,1511744070\n"
    )

    config, result = ingest(tmp_path, "taobao.yaml", "UserBehavior.csv")

    assert result["behaviours"] == {"cart": 1, "favourite": 1, "purchase": 1, "view": 1}
    assert items_of(config) == [("2268318", "2520377"), ("2333346", "2520771")]
