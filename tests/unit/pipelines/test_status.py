import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.config import load_config
from pipelines.stages import Stage, StageContext, run_stage
from pipelines.status import run_status


def finish(run: Path, name: str) -> None:
    def execute(context: StageContext) -> dict[str, int]:
        return {"num_items": 1234}

    run_stage(Stage(name, (), ("seed",), execute, "test"), load_config(None, [f"paths.run={run}"]))


def test_status_tells_done_unfinished_and_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path, "ingest")
    (tmp_path / ".partial" / "embed-0123456789abcdef").mkdir(parents=True)
    (tmp_path / ".partial" / "fit-simulator-0123456789abcdef").mkdir()

    stages = run_status(load_config(None, [f"paths.run={tmp_path}"]))["stages"]

    shown = capsys.readouterr().out
    assert {name: status["state"] for name, status in stages.items()} == {
        "ingest": "done",
        "embed": "unfinished",
        "fit-simulator": "unfinished",
        "train": "missing",
        "evaluate": "missing",
        "finetune": "missing",
        "sweep": "missing",
    }
    assert stages["ingest"]["counts"] == {"num_items": 1234}
    assert "num_items 1,234" in shown
    assert "interrupted attempt" in shown


def test_folder_without_manifest_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()

    assert (
        run_status(load_config(None, [f"paths.run={tmp_path}"]))["stages"]["train"]["state"] == "unfinished"
    )


def test_json_is_one_object_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path, "ingest")

    assert main(["status", str(tmp_path), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["stages"]["ingest"]["state"] == "done"
