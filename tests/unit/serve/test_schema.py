import json

import pytest

from serve.config import ServeConfig
from serve.schema import RequestError, parse_request

LIMITS = ServeConfig(max_k=100, max_history=2, max_list=3)
ACT = {"item_id": "a", "behaviour": "view"}


def test_request_when_well_formed_is_taken():
    request = parse_request(b'{"user_id": "u", "history": [{"item_id": "a", "behaviour": "view"}]}', LIMITS)

    assert (request.user_id, request.history[0].item_id, request.k) == ("u", "a", None)
    assert parse_request(b"{}", LIMITS).candidates is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"k": 0}, r"^k: expected 1 to 100, got 0\.$"),
        ({"k": 101}, r"^k: expected 1 to 100, got 101\.$"),
        ({"k": "10"}, r"^k: expected a whole number, got '10'\.$"),
        ({"k": 2.5}, r"^k: expected a whole number, got 2\.5\.$"),
        ({"k": True}, r"^k: expected a whole number, got True\.$"),
        ({"user_id": 7}, r"^user_id: expected a string, got 7\.$"),
        ({"user_id": ""}, r"^user_id: expected at least 1 characters, got ''\.$"),
        ({"user_id": "u" * 600}, r"^user_id: expected at most 512 characters, got 'u+\.\.\.\.$"),
        ({"seed": 1}, r"^seed: expected one of user_id, history, .*, got an unknown field\.$"),
        ({"history": ["a"]}, r"^history\[0\]: expected an object, got 'a'\.$"),
        ({"history": [{"item_id": "a"}]}, r"^history\[0\]\.behaviour: expected a value, got none\.$"),
        ({"history": [{**ACT, "at": 1}]}, r"^history\[0\]\.at: expected one of item_id, behaviour, got"),
        ({"history": [ACT] * 3}, r"^history: expected at most 2 entries, got 3\.$"),
        ({"candidates": ["a"] * 4}, r"^candidates: expected at most 3 entries, got 4\.$"),
        ({"exclusions": ["a"] * 4}, r"^exclusions: expected at most 3 entries, got 4\.$"),
        ({"candidates": "a"}, r"^candidates: expected a list, got 'a'\.$"),
        ({"task_weights": {"view": -1.0}}, r"^task_weights\.view: expected at least 0, got -1\.0\.$"),
        ({"task_weights": {"view": float("nan")}}, r"^task_weights\.view: expected a finite number, got nan"),
        ({"task_weights": {"view": float("inf")}}, r"^task_weights\.view: expected a finite number, got inf"),
        ({"task_weights": [1]}, r"^task_weights: expected an object, got \[1\]\.$"),
        ([], r"^body: expected an object, got \[\]\.$"),
    ],
)
def test_request_when_malformed_names_the_field(body, message):
    with pytest.raises(RequestError, match=message) as caught:
        parse_request(json.dumps(body).encode(), LIMITS)

    assert caught.value.status == 422


@pytest.mark.parametrize("body", [b"", b"{", b"k=10", b'{"k": 1} x', b"\xff"])
def test_request_when_no_json_is_a_bad_request(body):
    with pytest.raises(RequestError, match=r"^body: expected JSON, ") as caught:
        parse_request(body, LIMITS)

    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
