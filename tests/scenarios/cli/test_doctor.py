"""`lbproxy doctor` before real gunicorn, uvicorn and waitress, and before servers that answer as the
documentation of Triton, vLLM and text-generation-inference says that they do.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import nursery
from tests.support.ports import consecutive_ports
from tests.support.timed_app import WORK, served

# name: server, workers, threads
REAL: Mapping[str, tuple[str, int, int]] = {
    "sync": ("gunicorn-sync", 1, 1),
    "shared": ("gunicorn-sync", 3, 1),
    "gthread": ("gunicorn-gthread", 1, 4),
    "uvicorn": ("uvicorn", 1, 1),
    "waitress": ("waitress", 1, 4),
}
AT_ONCE = {"sync": 1, "shared": 3, "gthread": 4, "uvicorn": 6, "waitress": 4}
Object = dict[str, Any]


def doctor(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return nursery.run(["doctor", "lb.yaml", *words], folder, timeout_s=180.0)


def write(folder: Path, pools: Mapping[str, object], name: str = "lb.yaml") -> None:
    routes = [{"match": {"path": f"/{pool}"}, "pool": pool} for pool in pools]
    listener = {"bind": "127.0.0.1:0", "routes": routes}
    text = yaml.safe_dump({"listeners": [listener], "pools": dict(pools), "admin": "off"})
    (folder / name).write_text(text)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield {name: stack.enter_context(served(*how, folder / f"{name}.log")) for name, how in REAL.items()}


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Object]:
    """The pools of the JSON answer, by name; each with one server."""
    found: dict[str, Object] = {}
    for pool in json.loads(done.stdout)["pools"]:
        [server] = pool["servers"]
        found[pool["name"]] = {**server, "fits": pool["fits"], "pool_problems": pool["problems"]}
    return found


def pasted(folder: Path, fragment: str) -> subprocess.CompletedProcess[str]:
    """`lbproxy check` of the file with these lines in it."""
    config = yaml.safe_load((folder / "lb.yaml").read_text())
    for name, lines in yaml.load(fragment, Loader=yaml.BaseLoader)["pools"].items():
        config["pools"][name] |= {key: int(value) if key == "max_inflight" else value for key, value in lines.items()}
    (folder / "pasted.yaml").write_text(yaml.safe_dump(config))
    return nursery.run(["check", "pasted.yaml"], folder)


@pytest.mark.slow
@pytest.mark.timeout(400)  # seconds of silence, and some dozens of requests of 0.3 s, on a machine that others load
def test_real_servers_are_known_and_the_lines_for_them_pass_the_check(ports: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path, {name: {"servers": [f"127.0.0.1:{port}"]} for name, port in ports.items()})
    for _ in range(4):  # where others want the processor, requests that are alone are not always the quickest
        done = doctor(tmp_path, "--json", "--timeout", "30", "--idle", "8", "--probe", "--path", WORK, "--at-most", "6")
        assert (done.returncode, done.stderr) == (0, "")
        found = told(done)
        if {name: server["at_once"] for name, server in found.items()} == AT_ONCE:
            break
    assert {name: server["kind"] for name, server in found.items()} == {
        "sync": "gunicorn-sync",
        "shared": "gunicorn-sync",
        "gthread": "gunicorn-gthread",
        "uvicorn": "uvicorn",
        "waitress": "waitress",
    }
    at_once = {name: (server["at_once"], server["at_once_or_more"]) for name, server in found.items()}
    assert at_once == {name: (number, name == "uvicorn") for name, number in AT_ONCE.items()}
    assert {name for name, server in found.items() if not server["kept"]} == {"sync", "shared"}
    # A busy machine may see the end of a connection late, but not after the 8 s.
    assert 1.9 < found["gthread"]["closed_after"] < 8.0
    assert 4.9 < found["uvicorn"]["closed_after"] < 8.0
    assert found["waitress"]["closed_after"] is None, "120 s"
    assert {name: len(server["pids"]) for name, server in found.items() if server["pids"]} == {
        name: workers for name, (_, workers, _) in REAL.items()
    }
    assert {name: server["fits"] for name, server in found.items()} == {
        "sync": {"kind": "gunicorn-sync", "max_inflight": 1, "health_check": "/health"},
        "shared": {"kind": "gunicorn-sync", "max_inflight": 3, "health_check": "/health"},
        "gthread": {"kind": "gunicorn-gthread", "max_inflight": 4, "health_check": "/health"},
        "uvicorn": {"kind": "uvicorn", "health_check": "/health"},
        "waitress": {"kind": "waitress", "health_check": "/health"},
    }
    check = pasted(tmp_path, json.loads(done.stdout)["yaml"])
    assert (check.returncode, check.stderr) == (0, "")


def test_a_config_that_fits_is_told_nothing_more(ports: dict[str, int], tmp_path: Path) -> None:
    pool = {"servers": [f"127.0.0.1:{ports['shared']}"], "kind": "gunicorn-sync", "max_inflight": 3}
    write(tmp_path, {"p": {**pool, "health_check": "/health"}})
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "These lines fit" not in done.stdout
    assert "3 processes (" in done.stdout
    assert "answered 200 to GET /health" in done.stdout


def test_another_kind_than_the_config_says_is_a_problem(ports: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path, {"p": {"servers": [f"127.0.0.1:{ports['waitress']}"], "kind": "uvicorn"}})
    done = doctor(tmp_path, "--idle", "0")
    assert (done.returncode, done.stderr) == (1, "lb.yaml: 1 problem\n")
    assert "  problem: the config says kind uvicorn, and its servers are waitress\n" in done.stdout


def test_nobody_there_and_a_name_that_does_not_exist(tmp_path: Path) -> None:
    port = consecutive_ports(1)
    write(tmp_path, {"p": {"servers": [f"127.0.0.1:{port}", "no-such-name.invalid:80"]}})
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (1, "lb.yaml: 2 problems\n")
    lines = done.stdout.splitlines()
    assert f"  127.0.0.1:{port}: connection refused; is the server started, and is this its port?" in lines
    assert [line for line in lines if line.endswith("; is the name right?")]


# --- servers that are not at hand -------------------------------------------------------------------------------------

JSON = "application/json"
INFO = {"model_id": "m", "max_concurrent_requests": 64, "max_best_of": 2, "max_stop_sequences": 4, "version": "3.3.5"}
# name: Server field, and what is answered by path; everything else is 404
FAKES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "triton": (
        "",
        {"/v2": {"name": "triton", "version": "2.59.0", "extensions": ["classification"]}, "/v2/health/ready": None},
    ),
    "vllm": (
        "uvicorn",
        {
            "/health": None,
            "/version": {"version": "0.10.1"},
            "/v1/models": {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]},
        },
    ),
    "tgi": ("", {"/health": None, "/info": INFO}),
}


def fake(server: str, answers: Mapping[str, object]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode() if answers.get(self.path) is not None else b""
            self.send_response_only(200 if self.path in answers else 404)
            if server:
                self.send_header("Server", server)
            self.send_header("Content-Type", JSON)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def fakes() -> Iterator[dict[str, int]]:
    servers = {name: fake(*how) for name, how in FAKES.items()}
    for server in servers.values():
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield {name: server.server_address[1] for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def test_model_servers_are_known_by_what_only_they_answer(fakes: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path, {name: {"servers": [f"127.0.0.1:{port}"]} for name, port in fakes.items()})
    done = doctor(tmp_path, "--json", "--idle", "0")
    assert (done.returncode, done.stderr) == (0, "")
    found = told(done)
    assert {name: (server["kind"], server["what"]) for name, server in found.items()} == {
        "triton": ("triton", "Triton 2.59.0"),
        "vllm": ("vllm", "vLLM 0.10.1"),
        "tgi": ("tgi", "text-generation-inference 3.3.5"),
    }
    assert {name: server["fits"] for name, server in found.items()} == {
        "triton": {"kind": "triton"},
        "vllm": {"kind": "vllm"},
        "tgi": {"kind": "tgi", "max_inflight": 64},
    }
    check = pasted(tmp_path, json.loads(done.stdout)["yaml"])
    assert (check.returncode, check.stderr) == (0, "")


def test_with_its_kind_each_passes_its_own_check(fakes: dict[str, int], tmp_path: Path) -> None:
    pools = {name: {"servers": [f"127.0.0.1:{port}"], "kind": name} for name, port in fakes.items()}
    write(tmp_path, {**pools, "tgi": {**pools["tgi"], "max_inflight": 64}})
    done = doctor(tmp_path, "--json", "--idle", "0")
    assert (done.returncode, done.stderr) == (0, "")
    found = told(done)
    assert {name: server["check"] for name, server in found.items()} == {
        "triton": "answered 200 to GET /v2/health/ready",
        "vllm": "answered 200 to GET /health",
        "tgi": "answered 200 to GET /health",
    }
    assert {name: server["fits"] for name, server in found.items()} == {"triton": {}, "vllm": {}, "tgi": {}}
