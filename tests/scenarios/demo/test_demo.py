"""The running demo: it predicts, it survives the loss of a server, and nothing outlives it, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import build, nursery
from tests.support.build import ROOT
from tests.support.daemon import STOP_S
from tests.support.pages import blocks
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FLOWERS = b'{"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}'
START_S = 60.0  # five processes of Python, where thirty others want the two cores


class Demo:
    """A demo that has printed its page."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.output = output
        self.tree: set[int] = set()

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def url(self) -> str:
        return str(re.findall(r"listens on (\S+)", self.text)[0])

    @property
    def proxy_pid(self) -> int:
        return int(re.findall(r"lbproxy \(pid (\d+)\)", self.text)[0])

    @property
    def server_pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"predict server \S+ \(pid (\d+)\)", self.text)]

    def wait_started(self) -> None:
        def is_started() -> bool:
            assert self.process.poll() is None, self.text
            return "Ctrl-C stops everything" in self.text

        wait_until(is_started, "the demo to start", START_S)
        # Every server's own worker process too: those are what could be forgotten.
        wait_until(lambda: len(descendants(self.process.pid)) >= 7, "three servers with a worker each", START_S)
        self.tree = descendants(self.process.pid)

    def predict(self) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://{self.url}/predict", data=FLOWERS, headers={"Content-Type": "application/json"}
        )
        with _OPENER.open(request, timeout=60) as answer:
            value: dict[str, object] = json.load(answer)
            return value

    def assert_nothing_is_left(self) -> None:
        assert len(self.tree) >= 7
        wait_until(lambda: not any(is_alive(pid) for pid in self.tree), "every process of the demo to end")


def classes(answer: dict[str, object]) -> list[object]:
    predictions = answer["predictions"]
    assert isinstance(predictions, list)
    return [prediction["class"] for prediction in predictions]


def descendants(pid: int) -> set[int]:
    """Processes below `pid`, from /proc."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                found.add(child)
                waiting.append(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@contextmanager
def running_demo(command: list[str], output: Path) -> Iterator[Demo]:
    with output.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    running = Demo(process, output)
    try:
        yield running
    finally:
        for pid in [*descendants(process.pid), process.pid] if process.poll() is None else []:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def demo(directory: Path, *options: str) -> Iterator[Demo]:
    # Not port 0: between the demo, which chooses, and lbproxy, which binds, another test could be given what it chose.
    port = consecutive_ports(2)
    addresses = ["--bind", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{port + 1}"]
    command = [*build.COMMAND, "demo", *addresses, *options]
    with running_demo(command, directory / "demo.log") as running:
        yield running


def test_it_predicts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Other tests end it with SIGTERM and SIGINT."""
    with demo(tmp_path) as running:
        running.wait_started()
        answers = [running.predict() for _ in range(9)]
        assert len({answer["pid"] for answer in answers}) == 3
        assert [classes(answer) for answer in answers] == [["setosa", "virginica"]] * 9
        running.process.send_signal(signal.SIGHUP)
        assert running.process.wait(STOP_S) == 0, running.text
        running.assert_nothing_is_left()


def test_requests_go_on_without_a_server_that_was_killed(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.wait_started()
        victim = running.server_pids[0]
        os.kill(victim, signal.SIGKILL)
        assert all("predictions" in running.predict() for _ in range(20))
        wait_until(lambda: "was killed by SIGKILL; 2 of 3 are left" in running.text, "the demo to notice")
        assert len({running.predict()["pid"] for _ in range(10)}) == 2
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(STOP_S) == 0
        running.assert_nothing_is_left()


def test_it_ends_with_lbproxy(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.wait_started()
        os.kill(running.proxy_pid, signal.SIGKILL)
        assert running.process.wait(STOP_S) == 1
        assert "lbproxy was killed by SIGKILL: the demo ends" in running.text
        running.assert_nothing_is_left()


def test_workers_do_not_outlive_a_server_that_was_killed_nor_anything_a_demo(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.wait_started()
        # The whole group is ended by the demo, too, and a worker looks for its master now and then: here both are
        # stopped and cannot.
        workers = descendants(running.server_pids[0])
        assert workers
        running.process.send_signal(signal.SIGSTOP)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        os.kill(running.server_pids[0], signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers)), "the workers to end with their master")
        # Nor does anything outlive a demo that was killed.
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        running.assert_nothing_is_left()


@pytest.mark.parametrize("option", ["--bind", "--admin", "--servers"])
def test_a_port_in_use_is_named(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # A range of three that ends at the port in use; its first two may be anything.
        address = f"127.0.0.1:{port - 2}-{port}" if option == "--servers" else f"127.0.0.1:{port}"
        with demo(tmp_path, option, address) as running:
            assert running.process.wait(STOP_S) == 1
            assert re.search(rf"is in use: choose another address with {option}\n", running.text), running.text


def test_a_config_that_lbproxy_refuses_is_status_2(tmp_path: Path) -> None:
    config = tmp_path / "lb.yaml"
    config.write_text("listeners: 5\n")
    command = [*build.COMMAND, "demo", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{config}:1:")


@contextmanager
def make_run(tmp_path: Path) -> Iterator[tuple[Demo, int]]:
    """What `make run` starts, at free ports. Gives the first: of three servers, lbproxy, its admin address."""
    first = consecutive_ports(5)
    text = (ROOT / "config/flask.yaml").read_text().replace("0.0.0.0:5000", f"127.0.0.1:{first + 3}")
    for number in range(3):
        text = text.replace(f"127.0.0.1:{5001 + number}", f"127.0.0.1:{first + number}")
    config = tmp_path / "flask.yaml"
    config.write_text(f"{text}admin: {{bind: 127.0.0.1:{first + 4}}}\n")
    servers = f"127.0.0.1:{first}-{first + 2}"
    command = [*build.COMMAND, "demo", "--config", str(config), "--servers", servers]
    with running_demo(command, tmp_path / "demo.log") as running:
        running.wait_started()
        yield running, first


def shape(text: str) -> list[str]:
    """Lines without numbers and without how wide columns are."""
    return [" ".join(re.sub(r"\d+(\.\d+)*", "N", line).split()) for line in text.strip().splitlines()]


def test_make_run_s_command_with_its_config_does_what_the_readme_shows(tmp_path: Path) -> None:
    """Its prediction, its line of the access log, and its status after a server was killed."""
    shown = {block.text.partition("\n")[0][:16]: block.text for block in blocks((ROOT / "README.md").read_text())}
    line = next(text for text in shown.values() if text.startswith('{"ts"'))
    prediction = next(text for text in shown.values() if text.startswith("$ curl")).splitlines()[-1]
    status = shown["$ lbproxy status"].partition("\n")[2]
    with make_run(tmp_path) as (running, first):
        assert running.url == f"127.0.0.1:{first + 3}"
        assert running.predict().keys() == json.loads(prediction).keys()
        # Round robin: three requests in a row meet three servers.
        assert {running.predict()["server"] for _ in range(3)} == {f"127.0.0.1:{first + n}" for n in range(3)}
        wait_until(lambda: '{"ts"' in running.text, "a line of the access log")
        logged = next(text for text in running.text.splitlines() if text.startswith('{"ts"'))
        assert list(json.loads(logged)) == list(json.loads(line))
        os.kill(running.server_pids[0], signal.SIGKILL)
        for _ in range(9):
            running.predict()

        def said() -> str:
            return nursery.run(["status", "--admin", f"127.0.0.1:{first + 4}"], tmp_path).stdout

        wait_until(lambda: re.search(r"connection refused$", said(), re.MULTILINE), "a check to find the server down")
        assert shape(said().replace("127.0.0.1", "0.0.0.0", 1)) == shape(status)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(STOP_S) == 0
        running.assert_nothing_is_left()
