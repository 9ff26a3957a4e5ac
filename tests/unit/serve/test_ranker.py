import itertools
import math

import numpy as np
import pytest
import torch

from pipelines.artifacts import RunDirectory
from rl.policy.bundle import load_bundle
from serve.ranker import Ranker
from serve.schema import RecommendRequest, RequestError
from tests.unit.serve.small_shop import ITEMS, write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle")
    write_small_bundle(path)
    return load_bundle(RunDirectory(str(path)))


@pytest.fixture
def ranker(bundle):
    return Ranker(bundle, seed=0)


def request(**fields):
    return RecommendRequest.model_validate(fields)


def logits_by_hand(bundle, past, items=(-1, -1, -1), tasks=(-1, -1, -1), weights=(0.25, 0.75)):
    """The training path: the policy's own logits."""
    with torch.no_grad():
        return bundle.policy.logits(
            torch.as_tensor(past)[None],
            torch.tensor([items]),
            torch.tensor([tasks]),
            torch.tensor([weights]),
        )[0].numpy()


def enumerate_slates(logits, allowed, k):
    """Probability of every ordered slate: draw, remove, draw again."""
    probs = {}
    for slate in itertools.permutations(allowed, k):
        left, total = list(allowed), 1.0
        for item in slate:
            total *= math.exp(logits[item]) / sum(math.exp(logits[i]) for i in left)
            left.remove(item)
        probs[slate] = total
    return probs


def indices(answer):
    return tuple(ITEMS.index(item.item_id) for item in answer.items)


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"candidates": ["item1", "item4", "item0", "item1"]}, [0, 1, 4]),
        ({"exclusions": ["item2", "never heard of"]}, [0, 1, 3, 4]),
        ({"candidates": ITEMS[:4], "exclusions": ["item0"]}, [1, 2, 3]),
    ],
)
def test_propensities_when_items_are_masked_are_those_of_enumeration(ranker, bundle, fields, allowed):
    expected = enumerate_slates(logits_by_hand(bundle, bundle.empty_past), allowed, 2)

    answers = [ranker.recommend(request(k=2, **fields)) for _ in range(2000)]

    assert sum(expected.values()) == pytest.approx(1.0)
    counts = dict.fromkeys(expected, 0)
    for answer in answers:
        slate = indices(answer)
        assert answer.propensity == pytest.approx(expected[slate], rel=1e-5)
        assert answer.propensity == pytest.approx(math.prod(i.propensity for i in answer.items))
        assert math.exp(answer.log_propensity) == pytest.approx(answer.propensity)
        counts[slate] += 1
    for slate, prob in expected.items():  # drawn as often as said: five standard deviations
        assert abs(counts[slate] / 2000 - prob) < 5 * math.sqrt(prob * (1 - prob) / 2000) + 1e-3


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"user_id": "bob"}, {"past": 1}),
        ({"user_id": "nobody"}, {}),
        (
            {"history": [{"item_id": "item3", "behaviour": "view"}]},
            {"items": (-1, -1, 3), "tasks": (-1, -1, 0)},
        ),
        (
            {
                "user_id": "ann",
                "history": [
                    {"item_id": f"item{i}", "behaviour": b}
                    for i, b in ((4, "view"), (0, "view"), (1, "purchase"), (2, "view"))
                ],
            },
            {"past": 0, "items": (0, 1, 2), "tasks": (0, 1, 0)},
        ),
        ({"task_weights": {"view": 2.0}}, {"weights": (1.0, 0.0)}),
        ({"task_weights": {"view": 1e308, "purchase": 1e308}}, {"weights": (0.5, 0.5)}),
    ],
)
def test_state_when_served_gives_the_policys_own_propensities(ranker, bundle, fields, state):
    past = state.pop("past", None)
    logits = logits_by_hand(bundle, bundle.empty_past if past is None else bundle.user_pasts[past], **state)
    expected = enumerate_slates(logits, range(5), 3)

    answer = ranker.recommend(request(k=3, **fields))

    assert answer.propensity == pytest.approx(expected[indices(answer)], rel=1e-5)
    assert answer.known_user == (fields.get("user_id") in ("ann", "bob"))


def test_scores_when_weighted_sum_to_the_logits(ranker, bundle):
    logits = logits_by_hand(bundle, bundle.user_pasts[0])

    answer = ranker.recommend(request(user_id="ann", k=5))

    weighted = [0.25 * i.scores["view"] + 0.75 * i.scores["purchase"] for i in answer.items]
    np.testing.assert_allclose(weighted, logits[list(indices(answer))], rtol=1e-5)


def test_slate_when_k_is_left_out_has_the_policys_length(ranker):
    assert len(ranker.recommend(request()).items) == 3
    assert len(ranker.recommend(request(candidates=["item1"])).items) == 1


def test_slate_when_all_items_are_wanted_holds_each_once(ranker):
    answer = ranker.recommend(request(k=5))

    assert sorted(i.item_id for i in answer.items) == ITEMS
    assert answer.items[-1].propensity == pytest.approx(1.0)


def test_request_ids_when_asked_twice_differ(ranker):
    assert ranker.recommend(request()).request_id != ranker.recommend(request()).request_id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"history": [{"item_id": "x", "behaviour": "view"}]},
            r"history\[0\].item_id: .* known item, got 'x'",
        ),
        (
            {"history": [{"item_id": "item1", "behaviour": "stare"}]},
            r"history\[0\].behaviour: expected one of view, purchase, got 'stare'",
        ),
        ({"task_weights": {"joy": 1.0}}, "task_weights.joy: expected one of view, purchase"),
        ({"task_weights": {"view": 0.0}}, "task_weights: expected a weight above 0, got 0 for every task"),
        ({"task_weights": {}}, "task_weights: expected a weight above 0"),
        ({"candidates": ["item1", "x"]}, r"candidates\[1\]: expected a known item, got 'x'"),
        ({"candidates": ["item1"], "k": 2}, "k: expected at most 1, the number of candidates left, got 2"),
        ({"candidates": []}, "candidates: expected at least one"),
        ({"exclusions": ITEMS}, "candidates: expected at least one after exclusions, got none"),
    ],
)
def test_recommend_when_the_request_cannot_be_met_names_the_field(ranker, fields, message):
    with pytest.raises(RequestError, match=message):
        ranker.recommend(request(**fields))
