from pathlib import Path

import pytest

from pipelines.__main__ import read_command
from pipelines.config import ConfigError
from pipelines.submit import remote_command


def test_remote_command_carries_the_file_as_values_and_paths_as_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("rl: {slate_length: 7}\ncluster: {num_cpus: 1}\n")

    words = remote_command(["train", "--config", "mine.yaml", "paths.log=s3://b/log", "--json"])
    _, options, config = read_command(words[3:])

    assert words[:4] == ["python", "-m", "pipelines", "train"]
    assert options.config is None and options.json
    assert config.rl.slate_length == 7
    assert (config.cluster.address, config.cluster.num_cpus) == ("auto", None)
    assert config.paths.run == str(tmp_path / "runs/default")
    assert config.paths.log == "s3://b/log"


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        ([], "expected a stage after --, got none"),
        (["submit", "--", "train"], "got submit itself"),
        (["trian"], "expected one of ingest"),
        (["train", "rl.nothing=1"], "rl.nothing: expected a known key"),
    ],
)
def test_what_cannot_run_is_refused_here(remote: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        remote_command(remote)
