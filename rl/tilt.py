"""A rival of learning in the simulator: the clone, tilted along the text towards what whole simulated sessions pay for.

What pays only after many slates, such as to leave bait alone, hardly shows in the advantage of a single one, and a
policy may settle before it finds that. A tilt is a few numbers, so the returns of whole sessions tell good ones from
bad. What only the simulator believes they find as well, so the held-out simulator has a word in what is kept.
"""

import copy
import logging

import torch
from torch import Tensor

from rl.players import play_simulated
from rl.policy.candidates import Candidates, draw_candidates
from rl.policy.config import TiltConfig
from rl.policy.fragments import STATE_COLUMNS
from rl.policy.network import SlatePolicy, candidate_keys
from rl.policy.plackett_luce import sample_slates
from rl.simulator.features import whitened_directions
from rl.simulator.simulation import Ensemble
from rl.simulator.trace import Observation

logger = logging.getLogger(__name__)

_FIRST_DEVIATION = 0.7  # of a tilt, in logits a deviation of the text
_LEAST_DEVIATION = 0.05
_ELITE = 4  # one in so many tilts is followed
_FOLLOWED = 0.7  # how far a generation goes to where its best are
_LOGITS_AT_ONCE = 1 << 24


@torch.no_grad()
def tilt_clone(
    clone: SlatePolicy, ensemble: Ensemble, pasts: Tensor, config: TiltConfig, seed: int
) -> SlatePolicy | None:
    """The clone with a tilt of its text biases; None where none is searched for, or none returns more than without.

    Args:
        clone: To start from; left as it is.
        ensemble: To play in. Costs beyond their limits count before any return.
        pasts: Users' pasts that sessions start from. float32 [S, D].
        config: Of the search.
        seed: Of tilts, sessions and slates.

    Source:
        Rubinstein 1999, doi:10.1023/A:1010091220143 (cross-entropy method).
    """
    if config.num_generations == 0:
        return None
    tilted = copy.deepcopy(clone).eval()
    directions = torch.from_numpy(whitened_directions(clone.item_embeddings.numpy(), config.num_directions))
    texts = (clone.item_embeddings - clone.item_mean) @ directions
    trial = _Trial(tilted, ensemble, pasts, texts, config.num_candidates)
    dice = torch.Generator().manual_seed(seed)
    mean = torch.zeros(config.num_directions)
    deviation = torch.full_like(mean, _FIRST_DEVIATION)
    for generation in range(config.num_generations):
        tilts = mean + deviation * torch.randn(config.num_tilts, len(mean), generator=dice)
        worth = trial.worth(tilts, config.num_sessions, seed + generation)
        best = tilts[worth.topk(config.num_tilts // _ELITE).indices]
        mean = torch.lerp(mean, best.mean(0), _FOLLOWED)
        deviation = torch.lerp(deviation, best.std(0), _FOLLOWED).clamp_min(_LEAST_DEVIATION)
    sessions = config.num_sessions * config.num_tilts // 2
    pair = torch.stack([torch.zeros_like(mean), mean])
    without, with_it = trial.worth(pair, sessions, seed + config.num_generations)
    logger.info("tilt: %.3f a simulated session, %.3f without", with_it, without)
    if with_it <= without:
        return None
    tilted.text_bias.weight += directions @ mean / clone.shape.text_width**0.5  # as item_keys scales texts
    return tilted


class _Trial:
    """Plays tilts of a policy side by side."""

    def __init__(
        self, policy: SlatePolicy, ensemble: Ensemble, pasts: Tensor, texts: Tensor, num_candidates: int
    ) -> None:
        """``texts`` are the items' in the directions that tilts go by. float32 [N, Q]."""
        self.policy, self.ensemble, self.pasts, self.texts = policy, ensemble, pasts, texts
        self.num_candidates = num_candidates

    def _candidates(self, past: Tensor, weights: Tensor, dice: torch.Generator) -> Candidates:
        """The catalogue, or a part of a larger one, by how often the clone opens a session with each item."""
        count = len(self.texts)
        if count <= self.num_candidates:
            return Candidates(torch.arange(count), torch.zeros(count))
        nothing = torch.full((len(past), self.policy.shape.history_length), -1)
        keys, wanted = self.policy.item_keys(), torch.zeros(count)
        for part in torch.split(torch.arange(len(past)), max(1, _LOGITS_AT_ONCE // count)):
            asked = weights.expand(len(part), -1)
            wanted += (
                self.policy.logits(past[part], nothing[part], nothing[part], asked, keys).softmax(-1).sum(0)
            )
        return draw_candidates(wanted, self.num_candidates, dice)

    def worth(self, tilts: Tensor, num_sessions: int, seed: int) -> Tensor:
        """Mean weighted return of each tilt [P, Q] over the same users; costs beyond limits count first. [P]."""
        dice = torch.Generator().manual_seed(seed)
        users = torch.randint(len(self.pasts), (num_sessions,), generator=dice)
        tasks = self.ensemble.tasks
        weights = torch.from_numpy(tasks.weights)
        candidates = self._candidates(self.pasts[users], weights, dice)
        past = self.pasts[users].repeat(len(tilts), 1)
        each = tilts.repeat_interleave(num_sessions, 0)
        player = _TiltedPlayer(self.policy, self.texts, each, candidates, dice)
        returns, _ = play_simulated(
            self.ensemble, player, past, weights, self.policy.shape.history_length, dice
        )
        returns = returns.view(len(tilts), num_sessions, -1).mean(1)  # [P, K], costs negative
        excess = (-returns / torch.from_numpy(tasks.limits) - 1).clamp_min(0).sum(-1)
        worth = returns @ weights
        return torch.where(excess > 0, worth.min() - 1 - excess, worth)


class _TiltedPlayer:
    """A policy whose scores are tilted, in each session by a tilt of its own."""

    def __init__(
        self,
        policy: SlatePolicy,
        texts: Tensor,
        tilts: Tensor,
        candidates: Candidates,
        dice: torch.Generator,
    ) -> None:
        """``texts`` float32 [N, Q] and ``tilts`` float32 [B, Q]; slates are drawn from the candidates."""
        self.policy, self.tilts, self.candidates, self.dice = policy, tilts, candidates, dice
        self.texts = texts[candidates.items]  # [C, Q]
        self.at_once = max(1, _LOGITS_AT_ONCE // len(self.texts))

    def start(self, past: Tensor) -> None:
        """Compute the item keys once."""
        self.keys = candidate_keys(self.policy.item_keys(), self.candidates)

    def choose(self, observation: Observation) -> Tensor:
        """Slates drawn at the observation's task weights, a part of the sessions at a time."""
        slates = []
        for rows in torch.split(torch.arange(len(self.tilts)), self.at_once):
            state = {name: observation[name][rows] for name in STATE_COLUMNS}
            logits = self.policy.logits(**state, keys=self.keys)
            logits += self.tilts[rows] @ self.texts.T + self.candidates.offsets
            slates.append(sample_slates(logits, self.policy.shape.slate_length, self.dice))
        return self.candidates.items[torch.cat(slates)]

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """The observation holds all it needs."""

    def keep(self, rows: Tensor) -> None:
        """Of the tilts too."""
        self.tilts = self.tilts[rows]
