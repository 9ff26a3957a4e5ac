import numpy as np

from pipelines.fit_simulator import held_back
from rl.simulator.storage import user_bucket

MEMBERS = 4


def test_each_member_holds_back_other_users() -> None:
    users = [f"user-{number % 300}" for number in range(900)]
    bucket = user_bucket(users)
    kept = [held_back(bucket, member) for member in range(MEMBERS)]

    assert all(0.05 < held.mean() < 0.2 for held in kept)
    assert np.stack(kept).sum(0).max() == 1  # nobody is held back twice
    for held in kept:
        inside = {user for user, out in zip(users, held, strict=True) if out}
        assert not inside & {user for user, out in zip(users, held, strict=True) if not out}


def test_few_users_give_sessions_instead() -> None:
    bucket = user_bucket(["only"] * 25)

    for member in range(MEMBERS):
        held = held_back(bucket, member)
        assert 0 < held.sum() < len(held)
