"""SASRec: the same forward pass as a public one, and it learns an order."""

import numpy as np
import pytest
import torch

from rl.evaluation.config import RivalsConfig
from rl.evaluation.pasts import user_pasts
from rl.evaluation.ranking import ranking_states
from rl.evaluation.sasrec import SASRec, _user_windows, sasrec_scorer
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW, RETURN = 0, 2


def test_forward_equals_cornacs_with_the_same_weights():
    public = pytest.importorskip(
        "cornac.models.sasrec.sasrec", reason="cornac, a development extra, is missing"
    )
    torch.manual_seed(0)
    theirs = public.SASRecModel(12, embedding_dim=8, maxlen=6, use_biases=False, pad_idx=12).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    with torch.no_grad():
        theirs.item_emb.weight[12] = 0.0
    ours = SASRec(12, 8, 6).eval()
    state = {"item.weight": theirs.item_emb.weight, "position.weight": theirs.pos_emb.weight[:6]}
    state |= {"norm.weight": theirs.last_layernorm.weight, "norm.bias": theirs.last_layernorm.bias}
    for i, block in enumerate(ours.blocks):
        pairs = {
            "attention_norm": theirs.attention_layernorms[i],
            "attention": theirs.attention_layers[i],
            "feed_norm": theirs.forward_layernorms[i],
        }
        for name, module in pairs.items():
            state |= {f"blocks.{i}.{name}.{key}": value for key, value in module.state_dict().items()}
        for place, conv in (
            (0, theirs.forward_layers[i].process[0]),
            (3, theirs.forward_layers[i].process[3]),
        ):
            state |= {
                f"blocks.{i}.feed.{place}.weight": conv.weight[..., 0],
                f"blocks.{i}.feed.{place}.bias": conv.bias,
            }
        assert len(block.state_dict()) == 12
    ours.load_state_dict(state)
    items = torch.tensor([[3, 1, 4, 1, 5, 9], [-1, -1, -1, 2, 6, 5], [-1, -1, -1, -1, -1, 7]])

    with torch.no_grad():
        got = ours(items)[:, -1]
        expected = theirs._encode(torch.where(items < 0, 12, items))

    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_place_does_not_see_the_ones_after_it():
    model = SASRec(9, 8, 5).eval()
    first, second = torch.tensor([[-1, 1, 2, 3, 4]]), torch.tensor([[-1, 1, 2, 8, 0]])

    torch.testing.assert_close(model(first)[:, :3], model(second)[:, :3])
    assert not torch.allclose(model(first)[:, 3], model(second)[:, 3])


def test_windows_hold_every_step_of_every_user_once():
    log = session_log(
        [[(i, VIEW) for i in (0, 1, 1, 2, 3)], [(5, VIEW), (6, RETURN)], [(4, VIEW), (0, VIEW)]],
        [0, 0, 0],
        users=["a", "b", "a"],
    )
    pasts = user_pasts(log, TASKS)

    windows = _user_windows(pasts, pasts.in_train, 4)

    pairs = [
        (int(i), int(n))
        for row, following in zip(windows.items, windows.nexts, strict=True)
        for i, n in zip(row, following, strict=True)
        if n >= 0
    ]
    assert sorted(pairs) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    assert windows.items[-1].tolist() == [2, 3, 4, 0]


def test_it_learns_which_item_follows_and_repeats_with_the_seed():
    rng = np.random.default_rng(0)

    def walk(length):
        start = int(rng.integers(8))
        return [((start + 3 * i) % 8, VIEW) for i in range(length)]

    sessions = [walk(7) for _ in range(150)]
    log = session_log(sessions, [0] * 110 + [1] * 20 + [2] * 20)
    pasts, judged = user_pasts(log, TASKS), ranking_states(log, 3, 4, 1000)
    asked = judged.before > 0
    config = RivalsConfig(sasrec_width=16, sasrec_length=8, sasrec_epochs=40, sasrec_negatives=100)

    scores = sasrec_scorer(log, pasts, 8, config, seed=0)(judged.states, judged.sessions)
    again = sasrec_scorer(log, pasts, 8, config, seed=0)(judged.states, judged.sessions)

    assert (scores.argmax(axis=1) == judged.targets)[asked].mean() > 0.95
    np.testing.assert_array_equal(scores, again)


def test_sampled_negatives_learn_it_too():
    rng = np.random.default_rng(0)
    sessions = [[((s + 5 * i) % 30, VIEW) for i in range(7)] for s in rng.integers(30, size=200)]
    log = session_log(sessions, [0] * 150 + [1] * 25 + [2] * 25)
    pasts, judged = user_pasts(log, TASKS), ranking_states(log, 3, 4, 1000)
    config = RivalsConfig(sasrec_width=16, sasrec_length=8, sasrec_epochs=200, sasrec_negatives=10)

    scores = sasrec_scorer(log, pasts, 30, config, seed=0)(judged.states, judged.sessions)

    assert (scores.argmax(axis=1) == judged.targets)[(judged.before > 0) & (judged.before < 6)].mean() > 0.9
