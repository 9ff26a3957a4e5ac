"""``slatewise compare`` through the command line."""

import json

import pytest

from pipelines.__main__ import main
from pipelines.artifacts import RunDirectory
from tests.unit.rl.test_evaluation_report import example_report


@pytest.fixture
def runs(tmp_path):
    names = [str(tmp_path / name) for name in ("a run", "b")]
    for name, level in zip(names, (3, 1), strict=True):
        RunDirectory(name).write_json("report.json", example_report(popular=1, ppo=level))
    return names


def test_runs_are_printed_side_by_side_and_written_as_a_page(runs, tmp_path, capsys):
    page = tmp_path / "new" / "compare.html"

    assert main(["compare", *runs, "--page", str(page)]) == 0

    out = capsys.readouterr().out
    assert all(name in out for name in runs)
    assert "weighted return a session" in out
    assert "2 runs side by side" in page.read_text()


def test_json_holds_the_figures(runs, capsys):
    assert main(["compare", *runs, "--json"]) == 0

    content = json.loads(capsys.readouterr().out)
    assert set(content["policies"]["ppo"]) == set(runs)
    assert content["page"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda runs: [], "expected at least one run"),
        (lambda runs: [runs[0], f"{runs[0]}/"], "expected different runs"),
        (lambda runs: [runs[0], f"{runs[0]}-none"], "expected a report, found none. Run `slatewise evaluate"),
    ],
)
def test_what_cannot_be_compared_takes_one_line(runs, change, says, capsys):
    assert main(["compare", *change(runs)]) == 1

    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("slatewise compare: ") and len(error.strip().splitlines()) == 1


def test_help_names_runs_and_page(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])

    out = capsys.readouterr().out
    assert "[RUN ...]" in out and "--page FILE" in out and "settings and their defaults" not in out
