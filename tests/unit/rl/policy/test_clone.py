import numpy as np
import pytest
import torch

from encoders.sessions import LoggedSlates, SessionLog
from rl.policy.clone import Questions, collect_targets, first_meetings, place_newcomers, train_clone
from rl.policy.config import CloneConfig
from rl.policy.network import DECAYS, PolicyShape, SlatePolicy, history_sums
from rl.tasks import TaskConfig, Tasks, build_tasks

N = 8


def a_log(num_sessions: int, tasks: list[int]) -> SessionLog:
    """Each session walks the ring of items: the next item is the last one plus one."""
    dice = np.random.default_rng(0)
    start = dice.integers(0, N, num_sessions)
    items = (start[:, None] + np.arange(4)) % N
    return SessionLog(
        [str(s) for s in range(num_sessions)],
        [str(s) for s in range(num_sessions)],
        np.where(np.arange(num_sessions) < 0.8 * num_sessions, 0, 1).astype(np.int8),
        np.zeros((num_sessions, 6), dtype=np.float32),
        np.arange(num_sessions + 1) * 4,
        items.ravel(),
        np.tile(np.array(tasks), num_sessions),
        np.zeros(4 * num_sessions, dtype=np.float32),
        None,
    )


def tasks_of(**configs: TaskConfig) -> Tasks:
    return build_tasks(configs)


def a_policy(num_tasks: int) -> SlatePolicy:
    torch.manual_seed(0)
    shape = PolicyShape(num_items=N, text_width=6, num_tasks=num_tasks, slate_length=2, history_length=4)
    return SlatePolicy(shape, np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32))


def test_history_sums_equal_a_loop() -> None:
    vectors = torch.cat([torch.randn(N, 3), torch.zeros(1, 3)])
    items, tasks = torch.tensor([[-1, 2, 5, 2]]), torch.tensor([[-1, 0, 1, 1]])

    sums = history_sums(vectors, items, tasks, 2).view(2, len(DECAYS), 4)

    for task in range(2):
        for index, decay in enumerate(DECAYS):
            scale = 1 - decay if decay < 1 else 1 / 16
            expected = torch.zeros(4)
            for place in range(4):
                if tasks[0, place] == task:
                    one = torch.cat([vectors[items[0, place]], torch.ones(1)])
                    expected += scale * decay ** (3 - place) * one
            torch.testing.assert_close(sums[task, index], expected)


def test_cost_tasks_are_no_targets() -> None:
    log = a_log(10, [0, 1, 0, 0])
    tasks = tasks_of(buy=TaskConfig(), send_back=TaskConfig(after="buy", cost=True))

    targets = collect_targets(log, log.sessions("train"), tasks)

    assert set(targets.task.tolist()) == {0}
    assert len(targets) == 3 * 8


def test_target_states_end_before_the_item_was_first_touched() -> None:
    log = a_log(1, [0, 0, 0, 0])
    log = SessionLog(**{**vars(log), "items": np.array([3, 4, 3, 5]), "split": np.zeros(1, dtype=np.int8)})

    targets = collect_targets(log, log.sessions("train"), tasks_of(view=TaskConfig()))

    assert dict(zip(targets.item.tolist(), targets.first.tolist(), strict=True)) == {3: 0, 4: 1, 5: 3}


def test_clone_learns_what_comes_next() -> None:
    log = a_log(400, [0, 0, 0, 0])
    tasks = tasks_of(view=TaskConfig())
    policy = a_policy(1)

    history = train_clone(
        policy, log, tasks, CloneConfig(num_epochs=30, batch_size=128, learning_rate=1e-2), 0
    )

    held = log.sessions("validation")
    states = log.states(held, np.full(len(held), 3), 4)
    with torch.no_grad():
        logits = policy.logits(
            torch.from_numpy(states.past),
            torch.from_numpy(states.history_items),
            torch.from_numpy(states.history_tasks),
            torch.ones(len(held), 1),
        )
    truth = log.items.reshape(-1, 4)[held, 3]
    ranks = (logits > logits.gather(1, torch.from_numpy(truth)[:, None])).sum(1)
    assert (ranks < 2).float().mean() > 0.9  # the next item or, trained on all later ones, the one after
    assert history[-1]["loss/train"] < history[0]["loss/train"]


def test_items_are_no_wrong_answers_before_the_log_met_them() -> None:
    log = a_log(5, [0, 0, 0, 0])  # four sessions train, the last validates
    items = np.array([0, 1, 2, 3, 0, 1, 4, 3, 0, 1, 2, 5, 0, 1, 2, 3, 0, 6, 2, 3])
    shown = LoggedSlates(
        np.array([1]),
        np.array([[7, -1]]),
        *(np.zeros((1, 2, 1), np.float32),) * 2,
        np.ones((1, 2)),
        np.zeros(1, int),
    )
    log = SessionLog(**{**vars(log), "items": items, "slates": shown})
    policy, tasks = a_policy(1).eval(), tasks_of(view=TaskConfig())
    targets = collect_targets(log, log.sessions("train"), tasks)

    first = first_meetings(log, N)

    assert first.tolist() == [0, 0, 0, 0, 1, 2, 5, 1]  # 7 was only shown, 6 came after training
    rows = np.arange(len(targets))
    questions = Questions(log, targets, torch.from_numpy(first))
    with torch.no_grad():
        loss = questions.loss(policy, rows, targets.first, torch.ones(len(rows), 1))
        logits = questions.logits(policy, rows, targets.first, torch.ones(len(rows), 1)).double()
    slow = 0.0
    for row in rows:
        met = [item for item in range(N) if first[item] <= targets.session[row]]
        slow -= float(logits[row, targets.item[row]] - logits[row, met].logsumexp(0)) / len(rows)
    assert float(loss) == pytest.approx(slow, rel=1e-5)


def test_items_that_the_session_has_touched_are_no_answers() -> None:
    log = a_log(5, [0, 0, 0, 0])
    policy, tasks = a_policy(1).eval(), tasks_of(view=TaskConfig())
    targets = collect_targets(log, log.sessions("train"), tasks)
    questions = Questions(log, targets, torch.zeros(N, dtype=torch.int64))

    logits = questions.logits(policy, np.arange(len(targets)), targets.first, torch.ones(len(targets), 1))

    for row, (session, first) in enumerate(zip(targets.session, targets.first, strict=True)):
        touched = log.items.reshape(-1, 4)[session, :first].tolist()
        assert torch.isneginf(logits[row]).nonzero()[:, 0].tolist() == sorted(touched)


@pytest.mark.parametrize("chosen", [True, False])
def test_items_that_training_never_met_move_to_where_validation_wants_them(chosen: bool) -> None:
    log = a_log(40, [0, 0, 0, 0])
    items = log.items.reshape(-1, 4) % (N - 1)  # 7 is never met
    items[32:] = N - 1 if chosen else items[32:]
    log = SessionLog(**{**vars(log), "items": items.ravel()})
    policy, tasks = a_policy(1).eval(), tasks_of(view=TaskConfig())
    met = torch.from_numpy(first_meetings(log, N))
    held = Questions(log, collect_targets(log, log.sessions("validation"), tasks), met)

    place_newcomers(policy, held, tasks, 0.0)

    assert (policy.id_bias[N - 1] > 0) == chosen
    assert not policy.id_bias[: N - 1].any()


def test_last_item_calls_for_others_in_its_own_way() -> None:
    policy = a_policy(2).eval()
    torch.nn.init.normal_(policy.id_follow)
    policy.follow_share.data = torch.tensor([1.0, 0.5])
    keys = policy.item_keys()
    past, tasks = torch.zeros(2, 6), torch.tensor([[-1, -1, -1, 0], [-1, -1, -1, -1]])

    items = torch.tensor([[-1, -1, -1, 3], [-1, -1, -1, -1]])

    queries = policy.queries(past, items, tasks, keys)

    rest = policy.queries(past, items, tasks, keys._replace(follow=torch.zeros_like(keys.follow)))
    called = keys.follow[3]
    torch.testing.assert_close(queries[0], rest[0] + torch.stack([called, 0.5 * called]))
    torch.testing.assert_close(queries[1], rest[1])  # an empty session calls for nothing


def test_log_without_a_wanted_behaviour_is_refused() -> None:
    log = a_log(10, [0, 0, 0, 0])

    with pytest.raises(ValueError, match="expected behaviours of a wanted task in the train split, got none"):
        train_clone(a_policy(1), log, tasks_of(send_back=TaskConfig(cost=True)), CloneConfig(), 0)


def test_wrong_item_table_is_refused() -> None:
    shape = PolicyShape(num_items=3, text_width=6, num_tasks=1, slate_length=2, history_length=4)

    with pytest.raises(ValueError, match=r"item embeddings: expected \[3, 6\], got \[2, 6\]"):
        SlatePolicy(shape, np.zeros((2, 6), dtype=np.float32))
