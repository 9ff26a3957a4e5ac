"""The clone's benchmark runs through."""

import json

import pytest

from tests.benchmarks import clone


@pytest.mark.ray
def test_quick_run_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    clone.main(["--quick", "--seeds", "0"])

    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        figures["clone_vs_best_rival_movielens"] > 0.5
    )  # it has learned something, if not much from 80 users
    assert figures["clone_ndcg_movielens"] > 2 * 4.54 / 150  # twice what random order earns among 150 films
    assert "clone_vs_best_rival_rare_movielens_low" in figures
