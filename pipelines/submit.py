"""``slatewise submit -- <stage ...>``: the same command on a running Ray cluster."""

import os
from pathlib import Path
from typing import Any

from cluster.connection import CHECKOUT
from cluster.jobs import run_job
from pipelines.config import Config, ConfigError, override_config
from pipelines.config_keys import changed_values, override_text

LOCAL_PATHS = ("paths.run", "paths.log", "paths.items", "serve.policy")


def submit_command(config: Config, remote: list[str]) -> dict[str, Any]:
    """Send a command to the cluster at ``cluster.dashboard_url``, follow its log, and wait for its end.

    The command's config is read and checked here and travels as overrides, so no file need exist on the cluster.

    Args:
        config: Of ``submit`` itself; only its ``cluster`` section counts.
        remote: The command, as after ``slatewise``.

    Returns:
        ``job``, ``status`` (SUCCEEDED, FAILED or STOPPED) and ``exit_code``.

    Raises:
        ConfigError: The command or its config is not valid.
        ClusterError: The cluster cannot be reached or refuses us.
    """
    end = run_job(config.cluster.dashboard_url, remote_command(remote), CHECKOUT, _write)
    return {"job": end.job, "status": end.status, "exit_code": end.exit_code}


def remote_command(remote: list[str]) -> list[str]:
    """The words to run on the cluster: the stage, its options, and every value that is not the default.

    Raises:
        ConfigError: The command or its config is not valid.
    """
    from pipelines.__main__ import read_command

    if not remote:
        raise ConfigError(
            "submit: expected a stage after --, got none. Write it as `slatewise submit -- train`."
        )
    if remote[0] == "submit":
        raise ConfigError("submit: expected a stage after --, got submit itself. Name the stage to run.")
    name, options, config = read_command(remote)
    values = changed_values(_with_absolute_paths(config))
    values = {key: value for key, value in values.items() if not key.startswith("cluster.")}
    flags = [flag for flag, given in (("--json", options.json), ("--verbose", options.verbose)) if given]
    overrides = [override_text(key, value) for key, value in values.items()]
    return ["python", "-m", "pipelines", name, *flags, "cluster.address=auto", *overrides]


def _with_absolute_paths(config: Config) -> Config:
    """Relative paths are meant from here, not from the job's own copy of the checkout."""
    paths: dict[str, Any] = {}
    for key in LOCAL_PATHS:
        value = config.value(key)
        if value is not None and "://" not in value:
            paths[key] = os.path.normpath(Path(value).expanduser().absolute())
    if Path(config.encoder.model).exists():
        paths["encoder.model"] = str(Path(config.encoder.model).absolute())
    return override_config(config, paths)


def _write(text: str) -> None:
    print(text, end="", flush=True)
