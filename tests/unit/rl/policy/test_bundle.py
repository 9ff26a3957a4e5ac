import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.artifacts import RunDirectory
from rl.policy.bundle import load_bundle
from rl.policy.bundle_files import FILES, MANIFEST, BundleError, manifest_bytes, sha256
from tests.unit.serve.small_shop import EMPTY_PAST, ITEMS, TASKS, USERS, random_policy, write_small_bundle


@pytest.fixture
def bundle(tmp_path):
    write_small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def load(path):
    return load_bundle(RunDirectory(str(path)))


def list_hashes(path):
    """Make the manifest right for what lies there."""
    (path / MANIFEST).write_bytes(manifest_bytes({n: sha256((path / n).read_bytes()) for n in FILES}))


def test_bundle_when_loaded_gives_back_what_was_written(tmp_path):
    policy = random_policy()

    version = write_small_bundle(tmp_path, policy=policy)
    bundle = load(tmp_path)

    assert bundle.version == version
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(bundle.policy.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(bundle.policy.item_embeddings, policy.item_embeddings, rtol=0, atol=0)
    assert bundle.item_index == {item: row for row, item in enumerate(ITEMS)}
    assert bundle.items.column_names == ["item_id", "title"]
    assert bundle.users == {user: row for row, user in enumerate(USERS)}
    stored = np.stack(pq.read_table(tmp_path / "users.parquet")["embedding"].to_pylist())
    np.testing.assert_array_equal(bundle.user_pasts, stored.astype(np.float32))
    np.testing.assert_array_equal(bundle.empty_past, np.float32(EMPTY_PAST))
    assert bundle.tasks.names == TASKS.names and bundle.tasks.parents == TASKS.parents
    np.testing.assert_array_equal(bundle.tasks.weights, TASKS.weights)
    assert bundle.verdict == {"promote": True, "reasons": []}
    assert not bundle.policy.training


def test_version_when_the_content_is_equal_is_equal(tmp_path):
    first, second, other = (
        write_small_bundle(tmp_path / name, policy=random_policy(seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )

    assert first == second != other


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_load_when_a_byte_changed_names_the_file(bundle, name, place):
    data = bytearray((bundle / name).read_bytes())
    data[int(place * len(data)) if place >= 0 else -1] ^= 1
    (bundle / name).write_bytes(data)

    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load(bundle)


@pytest.mark.parametrize("name", FILES)
def test_load_when_a_file_is_missing_names_it(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(BundleError, match=f"expected the file {name}, found none"):
        load(bundle)


def test_load_when_a_file_is_unknown_names_it(bundle):
    (bundle / "policy.pkl").write_bytes(b"x")

    with pytest.raises(BundleError, match=r"expected only a bundle's files, found policy\.pkl"):
        load(bundle)


def test_load_when_there_is_no_manifest_says_what_to_run(bundle):
    (bundle / MANIFEST).unlink()

    with pytest.raises(BundleError, match=r"expected a policy bundle, found none\. Run `slatewise evaluate`"):
        load(bundle)


def test_load_when_the_schema_is_another_names_both(bundle):
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 9}))

    with pytest.raises(BundleError, match="expected schema version 1, found 9"):
        load(bundle)


def test_load_when_the_policy_answers_the_probes_otherwise_refuses(bundle):
    weights = load_file(bundle / "policy.safetensors")
    weights["id_bias"][0] += 0.01
    save_file(weights, bundle / "policy.safetensors")
    list_hashes(bundle)

    with pytest.raises(BundleError, match=r"probes' log-probabilities within 0\.0001"):
        load(bundle)


def test_load_when_only_rounding_differs_accepts(bundle):
    probes = load_file(bundle / "probes.safetensors")
    probes["log_prob"] += 2e-5
    save_file(probes, bundle / "probes.safetensors")
    list_hashes(bundle)

    assert load(bundle).policy is not None
