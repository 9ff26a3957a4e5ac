from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from pipelines.artifacts import ArtifactError
from pipelines.failure import explain_failure


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_callers_mistake_is_its_own_message_on_one_line(tmp_path: Path) -> None:
    line = explain_failure(ArtifactError("a:\n  b"), "train", str(tmp_path), False)

    assert line == "a: b"
    assert not list(tmp_path.iterdir())


def test_mistake_found_in_a_ray_task_reads_like_one_found_here(tmp_path: Path) -> None:
    inner = ArtifactError("shard-0.parquet: expected Parquet.")
    wrapped = RayTaskError("read", "Traceback ...", inner).as_instanceof_cause()

    assert explain_failure(wrapped, "ingest", str(tmp_path), False) == "shard-0.parquet: expected Parquet."


def test_missing_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"

    with pytest.raises(FileNotFoundError) as caught:
        file.read_text()

    assert explain_failure(caught.value, "run", str(tmp_path), False) == f"{file}: no such file or directory."


def test_our_mistake_keeps_its_traceback_in_the_run(tmp_path: Path) -> None:
    line = explain_failure(raised(KeyError("weights")), "train", str(tmp_path), False)

    (file,) = (tmp_path / "logs").iterdir()
    assert line == f"KeyError: 'weights'. Traceback in {file}"
    assert "in raised" in file.read_text()


def test_our_mistake_without_a_run_shows_its_traceback() -> None:
    assert "in raised" in explain_failure(raised(KeyError("weights")), "train", None, False)


def test_verbose_shows_every_traceback(tmp_path: Path) -> None:
    assert "in raised" in explain_failure(raised(ValueError("x")), "train", str(tmp_path), True)
