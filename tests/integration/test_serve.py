"""The service as a user starts it: a process of its own, over real HTTP."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serve.binding import free_port
from tests.unit.serve.small_shop import ITEMS, USERS, write_small_bundle

pytestmark = pytest.mark.ray

START = """
import sys
from pipelines.config import load_config
from pipelines.serve import serve_command
try:
    serve_command(load_config(None, sys.argv[2:]), sys.argv[1])
except ValueError as error:
    sys.exit(str(error))
"""


def command(policy, *overrides):
    return [sys.executable, "-c", START, str(policy), "cluster.num_cpus=1", *overrides]


def start(policy, port, *overrides):
    """A service that has said where it listens."""
    process = subprocess.Popen(
        command(policy, f"serve.port={port}", *overrides), stdout=subprocess.PIPE, text=True, bufsize=1
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return process, "".join(lines)
    raise AssertionError(f"the service did not start: {lines}")


def refused(policy, *overrides):
    """What a service says that does not start."""
    done = subprocess.run(command(policy, *overrides), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def listeners(port):
    """Local addresses, in hexadecimal, that the kernel has listening on a port. Also IPv6's."""
    found = []
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = row.split()[1], row.split()[3]
            host, number = address.split(":")
            if state == "0A" and int(number, 16) == port:
                found.append(host)
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "evaluate" / "bundle"
    version = write_small_bundle(path)
    return path, version


@pytest.fixture(scope="module")
def service(bundle):
    path, _ = bundle
    port = free_port("127.0.0.1")
    process, said = start(path.parent.parent, port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client, port, said
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert listeners(port) == []


def test_service_when_up_names_its_policy(service, bundle):
    client, _, said = service

    answer = client.get("/healthz")

    expected = {"status": "ok", "policy_version": bundle[1], "encoder": "none", "encoder_sha256": None}
    assert answer.json() == expected
    assert bundle[1] in said


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's socket tables")
def test_service_when_not_told_otherwise_listens_on_loopback_alone(service):
    _, port, _ = service

    assert listeners(port) == ["0100007F"]


def test_curl_when_copied_from_the_terminal_answers(service):
    _, _, said = service
    curl = re.search(r"curl .*", said).group()

    done = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True)

    assert len(json.loads(done.stdout)["items"]) == len(ITEMS)


@pytest.mark.parametrize(
    ("request_body", "known"),
    [
        ({"user_id": USERS[0]}, True),
        ({"history": [{"item_id": "item1", "behaviour": "view"}]}, False),
        ({"user_id": "never seen"}, False),
        ({}, False),
    ],
)
def test_recommend_when_asked_returns_distinct_items_with_propensities(service, bundle, request_body, known):
    client, _, _ = service

    answer = client.post("/v1/recommend", json={**request_body, "k": 4})

    body = answer.json()
    assert answer.status_code == 200, body
    assert len({item["item_id"] for item in body["items"]}) == 4
    assert all(
        0 < item["propensity"] <= 1 and set(item["scores"]) == {"view", "purchase"} for item in body["items"]
    )
    assert body["policy_version"] == bundle[1] and body["known_user"] is known


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        ('{"k": 0}', 422, "k: expected 1 to 100, got 0."),
        ('{"k": 6}', 422, "k: expected at most 5, the number of candidates left, got 6."),
        ("{", 400, "body: expected JSON, EOF while parsing an object at line 1 column 1."),
        ('{"task_weights": {"view": NaN}}', 422, "task_weights.view: expected a finite number, got nan."),
        (b" " * 2_000_000, 413, "body: expected at most 1048576 bytes, got more."),
    ],
)
def test_recommend_when_malformed_says_what_in_one_line(service, content, status, error):
    client, _, _ = service

    answer = client.post("/v1/recommend", content=content)

    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_path_when_unknown_is_an_error_in_json(service):
    client, _, _ = service

    assert client.get("/v1/nothing").json() == {"error": "GET /v1/nothing: not found."}
    assert client.get("/v1/recommend").status_code == 405


def test_serve_when_the_port_is_in_use_says_so(bundle):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        said = refused(bundle[0], f"serve.port={port}")

    assert f"serve.port: expected a free port at 127.0.0.1, got {port}, which is in use." in said


def test_serve_when_the_gate_refused_says_why_and_what_allows_it(tmp_path):
    version = write_small_bundle(tmp_path, promote=False)

    said = refused(tmp_path)

    assert f"the gate does not promote policy {version}: purchase: worse than logging." in said
    assert f"pass serve.allow_unpromoted={version}" in said


def test_serve_when_there_is_no_bundle_says_what_to_run(tmp_path):
    assert "Run `slatewise evaluate" in refused(tmp_path)


def test_serve_when_the_bundle_is_damaged_names_the_file(tmp_path):
    write_small_bundle(tmp_path)
    with (tmp_path / "policy.safetensors").open("ab") as file:
        file.write(b"x")

    assert "policy.safetensors: expected the content that manifest.json lists" in refused(tmp_path)


def test_service_when_interrupted_and_started_again_answers_on_the_same_port(tmp_path):
    version = write_small_bundle(tmp_path, promote=False)
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}/healthz"
    for _ in range(2):
        process, _ = start(tmp_path, port, f"serve.allow_unpromoted={version}")

        with httpx.Client(timeout=30) as client:
            assert client.get(url).json()["policy_version"] == version
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(timeout=60) == 0


def test_two_replicas_answer_behind_one_loopback_port(bundle):
    path, version = bundle
    port = free_port("127.0.0.1")
    process, _ = start(path.parent.parent, port, "serve.num_replicas=2", "cluster.num_cpus=2")

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        answers = [client.post("/v1/recommend", json={"user_id": "new", "k": 3}) for _ in range(8)]

    assert [answer.status_code for answer in answers] == [200] * 8
    assert {answer.json()["policy_version"] for answer in answers} == {version}
    assert set(listeners(port)) == {"0100007F"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
