"""Fixtures of tests that train in the shop of eight."""

from pathlib import Path

import pytest

from rl.policy.config import PPOSettings
from tests.integration.shop_of_eight import SUMMARY_WIDTH, ShopOfEight, load_item_embeddings
from tests.integration.training_on_eight import SHAPE, TINY


@pytest.fixture(scope="module")
def ray_of_four():
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def build():
    from rl.policy.algorithm import build_algorithm  # RLlib takes seconds, which other tests need not spend

    built = []

    def build_tiny(seed=3, world=ShopOfEight, dqn=None, limits=None, **changes):
        algorithm = build_algorithm(
            PPOSettings(**(TINY | changes)),
            SHAPE,
            load_item_embeddings,
            world,
            summary_width=SUMMARY_WIDTH,
            task_names=("view", "purchase"),
            seed=seed,
            limits=limits,
            dqn=dqn,
        )
        built.append(algorithm)
        return algorithm

    yield build_tiny
    for algorithm in built:
        algorithm.stop()
