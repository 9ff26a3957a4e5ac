import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.artifacts import ArtifactError, RunDirectory
from pipelines.config import ConfigError, load_config, override_config
from pipelines.registry import COMMANDS, ENTRIES
from pipelines.stages import Stage, StageContext, run_stage


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command leaves."""
    assert main(list(arguments)) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("config:") and line]
    assert len(lines) == 1, lines
    return lines[0]


def test_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected one of ingest, embed" in failure(capsys, "trian")


def test_commands_start_without_the_heavy_libraries() -> None:
    """Importing torch takes longer than all else that a command does before its work."""
    heavy = ("torch", "ray", "transformers", "polars", "pyarrow.dataset")
    program = f"import sys, pipelines.__main__; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_unknown_config_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "rl.ppo.foo: expected a known key" in failure(capsys, "train", "rl.ppo.foo=1")


def test_invalid_value_is_named_with_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "train", "rl.tasks.purchase.weight=-1")

    assert "rl.tasks.purchase.weight" in line and "-1" in line


def test_missing_config_file_lists_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "rees46.yaml" in failure(capsys, "run", "--config", "nowhere.yaml")


def test_missing_run_directory_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "expected a run directory, found none" in failure(capsys, "status", str(tmp_path / "none"))


def test_stage_before_its_inputs_says_what_to_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "Run `slatewise ingest` first" in failure(capsys, "embed", f"paths.run={tmp_path}")


@pytest.mark.parametrize("command", sorted(ENTRIES | COMMANDS))
def test_help_teaches_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])

    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"slatewise {command}" in text
    assert "Example" in text
    assert ("settings and their defaults" in text) == bool((ENTRIES | COMMANDS)[command].sections)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 3\nrl: {slate_length: 4}\n")

    config = load_config(str(file), ["rl.slate_length=7", "rl.ppo.learning_rate=3e-4"])

    assert (config.seed, config.rl.slate_length, config.rl.ppo.learning_rate) == (3, 7, 3e-4)


def test_override_keeps_the_other_tasks() -> None:
    config = load_config(None, ["rl.tasks.purchase.weight=3"])

    assert set(config.rl.tasks) == {"view", "cart", "purchase"}
    assert config.rl.tasks["purchase"].weight == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected dotted.key=value"),
        ("seed.x=1", "expected a section at 'seed'"),
        ("seed=[", "expected YAML"),
    ],
)
def test_malformed_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def counting_stage(calls: list[int], fail: bool = False) -> Stage:
    def execute(context: StageContext) -> dict[str, int]:
        calls.append(context.config.seed)
        context.folder.write_json("half.json", {})
        if fail:
            raise ValueError("broken in the middle")
        return {"num_calls": len(calls)}

    return Stage("count", (), ("seed",), execute, "counts")


def test_stage_is_skipped_until_its_config_changes(tmp_path: Path) -> None:
    calls: list[int] = []
    config = load_config(None, [f"paths.run={tmp_path}"])

    assert not run_stage(counting_stage(calls), config)["skipped"]
    assert run_stage(counting_stage(calls), config)["skipped"]
    assert not run_stage(counting_stage(calls), override_config(config, {"seed": 1}))["skipped"]
    assert calls == [0, 1]


def test_failed_stage_publishes_nothing(tmp_path: Path) -> None:
    config = load_config(None, [f"paths.run={tmp_path}"])

    with pytest.raises(ValueError, match="broken in the middle"):
        run_stage(counting_stage([], fail=True), config)

    run = RunDirectory(str(tmp_path))
    assert run.manifest("count") is None
    assert not run.exists("count")


def test_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    run_stage(counting_stage([]), load_config(None, [f"paths.run={tmp_path}"]))

    run = RunDirectory(str(tmp_path))
    manifest = json.loads((tmp_path / "count" / "manifest.json").read_text())
    assert set(manifest["files"]) == {"half.json", "config.json"}
    assert manifest["files"]["half.json"]["sha256"] == run.folder("count").sha256("half.json")
    assert not list(tmp_path.rglob("*.tmp"))


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / "manifest.json").write_text("{")

    with pytest.raises(ArtifactError, match="expected JSON"):
        RunDirectory(str(tmp_path)).manifest("count")


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(ArtifactError, match="expected a local path or a URI"):
        RunDirectory("nonsense://x/y")
