"""Training in the shop of eight: settings that learn in a dozen rounds, and what to look at."""

from rl.policy.network import PolicyShape
from tests.integration.shop_of_eight import HISTORY_LENGTH, NUM_ITEMS, NUM_TASKS, SLATE_LENGTH, ShopOfEight

SHAPE = PolicyShape(
    num_items=NUM_ITEMS,
    text_width=NUM_ITEMS,
    num_tasks=NUM_TASKS,
    slate_length=SLATE_LENGTH,
    history_length=HISTORY_LENGTH,
)
TINY = {
    "num_iterations": 15,
    "num_sessions": 64,
    "fragment_steps": 8,
    "num_minibatches": 2,
    "critic_width": 16,
    "kl": 0.001,
    "discount": 1.0,
    "learning_rate": 2e-3,  # eight items are learned in a dozen rounds
    "num_epochs": 3,
    "gae_decay": 0.95,
}


def sampled_return(result):
    return result["env_runners"]["episode_return_mean"]


def sampler_seeds(algorithm):
    """Seeds of the remote simulations that run, in order of their samplers."""
    seeds = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (runner.worker_index, runner._simulation.seed if runner._simulation else None),
        local_env_runner=False,
    )
    return [seed for _, seed in sorted(seeds) if seed is not None]


def observation():
    simulation = ShopOfEight(16, seed=1)
    return simulation.reset()


def best_actions(algorithm):
    module = algorithm.env_runner.module
    return module.forward_inference(observation())["actions"]
