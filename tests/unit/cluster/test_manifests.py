import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from cluster.connection import CHECKOUT
from pipelines.__main__ import read_command
from pipelines.registry import COMMANDS, ENTRIES
from serve.app import AppArguments, RecommendService

FOLDER = CHECKOUT / "cluster"
MANIFESTS = ["rayjob.yaml", "rayservice.yaml"]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    return cluster


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(manifest)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_job_runs_a_command_that_the_command_line_accepts() -> None:
    program, *words = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])

    name, _, config = read_command(words)

    assert program == "slatewise"
    assert name == "run"
    assert config.cluster.address == "auto"
    assert "://" in config.paths.run and "://" in str(config.paths.log)


def test_service_names_an_application_that_exists_with_arguments_it_takes() -> None:
    config = yaml.safe_load(read("rayservice.yaml")["spec"]["serveConfigV2"])
    application = config["applications"][0]

    module, _, name = application["import_path"].partition(":")
    arguments = AppArguments.model_validate(application["args"])

    assert callable(getattr(import_module(module), name))
    assert "://" in arguments.bundle
    assert [each["name"] for each in application["deployments"]] == [
        RecommendService.name  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_container_has_our_image_and_the_cluster_our_ray(name: str) -> None:
    manifest = read(name)

    assert {container["image"] for container in containers(manifest)} == {"slatewise:0.1.0"}
    assert cluster_of(manifest)["rayVersion"] == ray.__version__
    assert cluster_of(manifest)["authOptions"] == {"mode": "token"}


def test_image_copies_every_package_and_installs_without_editing() -> None:
    text = (FOLDER / "Dockerfile").read_text()

    copied = set(re.findall(r"^COPY (\w+) \w+$", text, flags=re.MULTILINE))
    files = [
        name for line in re.findall(r"^COPY (.+) \./?$", text, flags=re.MULTILINE) for name in line.split()
    ]

    assert copied == {"cluster", "encoders", "pipelines", "rl", "serve"}
    assert all((CHECKOUT / name).is_file() for name in files)
    assert "-e ." not in text


@pytest.mark.parametrize("file", [FOLDER / "README.md", FOLDER / "rayjob.yaml"])
def test_every_stage_named_is_a_stage(file: Path) -> None:
    named = re.findall(r"slatewise (?:submit -- )?([a-z][a-z-]+)", file.read_text())

    assert named
    assert set(named) <= set(ENTRIES | COMMANDS)
