"""The rules of the house that a machine can check."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "encoders", "pipelines", "rl", "serve")
ALLOWED = {
    "cluster": {"cluster"},
    "encoders": {"encoders"},
    "rl": {"rl", "encoders"},
    "serve": {"serve", "rl", "encoders"},
    "pipelines": set(PACKAGES),
}
MAX_LINES = 300
RLLIB_FILES = {"module.py", "learner.py", "connector.py", "env_runner.py", "algorithm.py", "q_learner.py"}


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=identify)
def test_imports_follow_the_order_of_packages(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)

    assert ours <= ALLOWED[package]


@pytest.mark.parametrize("path", sources("rl/evaluation"), ids=identify)
def test_the_judge_never_meets_the_coach(path: Path) -> None:
    met = {name for name in imports(path) if re.match(r"rl\.(simulator|policy)(\.|$)", name)}

    assert not met


@pytest.mark.parametrize("path", sources("encoders", "rl", "serve"), ids=identify)
def test_frameworks_stay_in_their_files(path: Path) -> None:
    used = imports(path)
    inside = identify(path)
    if any(name.split(".")[0] == "ray" for name in used):
        assert inside in ("serve/app.py", "serve/binding.py") or (
            path.parent.name == "policy" and path.name in RLLIB_FILES
        )
    if any(name.split(".")[0] == "transformers" for name in used):
        assert inside == "encoders/hugging_face.py"


@pytest.mark.parametrize("path", sources(*PACKAGES, "tests"), ids=identify)
def test_files_are_short_and_named_for_what_they_are_about(path: Path) -> None:
    length = len(path.read_text().splitlines())

    assert length <= MAX_LINES or path.is_relative_to(ROOT / "tests"), f"{length} lines"
    assert path.name not in ("utils.py", "helpers.py")


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_every_code_folder_has_a_docstring_and_nothing_more(package: str) -> None:
    for folder in {path.parent for path in sources(package)}:
        tree = ast.parse((folder / "__init__.py").read_text())

        assert ast.get_docstring(tree), folder
        assert len(tree.body) == 1, folder


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=identify)
def test_nothing_from_outside_is_unpickled(path: Path) -> None:
    text = path.read_text()

    assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib"}
    assert not re.search(r"torch\.load\((?!.*weights_only=True)", text)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_explains_itself(package: str) -> None:
    assert len((ROOT / package / "README.md").read_text().split()) > 50
