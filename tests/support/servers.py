"""Real processes for the end-to-end tests: gunicorns that can be killed and come back, and clients in threads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from tests.support import build
from tests.support.build import ROOT
from tests.support.daemon import START_S, STOP_S
from tests.support.ports import hold_port
from tests.support.waiting import wait_until

DEMO_APP = "lbproxy.demo.app:app"
E2E_APP = "tests.support.e2e_app:app"
FLOWERS = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}


def missing(program: str, command: str = "make system") -> NoReturn:
    """A test needs a program that is not there: on a build server it fails, elsewhere it is skipped with a word."""
    text = f"{program} is not installed; `{command}` installs it"
    if os.environ.get("CI") == "true":
        raise AssertionError(text)
    pytest.skip(text)


def needed(program: str) -> str:
    """The path of a program that a test drives; if there is none see `missing`."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    for folder in path.split(os.pathsep):
        candidate = Path(folder) / program
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    missing(program)


class Gunicorn:
    """One gunicorn with one gthread worker. It keeps its port over `kill` and `start`; nobody else gets it between."""

    def __init__(self, directory: Path, app: str = E2E_APP, **environ: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._app = app
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.path = ""

    @property
    def address(self) -> str:
        return f"unix:{self.path}" if self.path else f"127.0.0.1:{self.port}"

    def start(self, path: str = "") -> None:
        """Listen on the port of before, on one that the kernel chooses, or on a unix socket; `wait` for it to serve."""
        self.path = path
        with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as sock:
            if path:
                sock.bind(path)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", self.port))
                if not self.port:
                    self.port = sock.getsockname()[1]
                    hold_port(self, "127.0.0.1", self.port)
            sock.listen(512)
            with (self._directory / "gunicorn.log").open("ab") as output:
                self._process = subprocess.Popen(
                    self._command(sock.fileno()),
                    env={**os.environ, "PYTHONPATH": str(ROOT), **self._environ},
                    pass_fds=[sock.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def _command(self, fd: int) -> list[str]:
        settings = ["--config", "python:lbproxy.demo.gunicorn_settings", "--threads", "8"]
        return [sys.executable, "-m", "gunicorn", *settings, "--bind", f"fd://{fd}", self._app]

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, f"gunicorn on {self.address} to answer", START_S)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log
        with socket.socket(socket.AF_UNIX if self.path else socket.AF_INET) as sock:
            sock.settimeout(START_S)
            try:
                sock.connect(self.path or ("127.0.0.1", self.port))
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return sock.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self._directory / "gunicorn.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL to master and worker; afterwards the port refuses."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        wait_until(self._refuses, f"{self.address} to refuse connections")

    def pause(self) -> None:
        """SIGSTOP to master and worker: the kernel goes on accepting connections."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def _refuses(self) -> bool:
        with socket.socket(socket.AF_UNIX if self.path else socket.AF_INET) as sock:
            sock.settimeout(STOP_S)
            return sock.connect_ex(self.path or ("127.0.0.1", self.port)) != 0


@contextlib.contextmanager
def gunicorns(directory: Path, count: int, app: str = E2E_APP, **options: str) -> Iterator[list[Gunicorn]]:
    """`count` servers that answer."""
    servers = [Gunicorn(directory / f"server{number}", app, **options) for number in range(count)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            with contextlib.suppress(AssertionError):  # one that never started
                server.kill()


def run_refused(config_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected not to start."""
    return subprocess.run(
        [*build.COMMAND, "-c", str(config_path)],
        capture_output=True,
        text=True,
        timeout=START_S,
    )


def session(source: str = "") -> requests.Session:
    """A session without the environment's proxies, with connections from a loopback address of one's choice."""
    made = requests.Session()
    made.trust_env = False
    if source:
        adapter = requests.adapters.HTTPAdapter()
        adapter.poolmanager.connection_pool_kw["source_address"] = (source, 0)
        made.mount("http://", adapter)
    return made


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run work(0) ... work(count - 1) at the same time; the first exception is raised here."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, number) for number in range(count)]:
            done.result()


@dataclass
class Outcome:
    """One request of a load. error: why it has no (status 0) or no complete answer."""

    id: str
    status: int
    started: float
    ended: float
    error: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


class Load:
    """Clients that POST /work without a pause until told to stop; each request has an id of its own."""

    def __init__(self, port: int, clients: int, seconds: Sequence[float] = (0.02,), *, is_get: bool = False) -> None:
        """is_get: GETs of an echo instead, which take no time."""
        self._is_get = is_get
        self._url = f"http://127.0.0.1:{port}/{'echo' if is_get else 'work'}"
        self._seconds = seconds
        self._stop = threading.Event()
        self.outcomes: list[Outcome] = []
        self.has_left: set[int] = set()  # clients that were told to close their connection, with `stop_on_close`
        self.stop_on_close = False
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let the requests in progress end."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _client(self, number: int) -> None:
        with session() as client:
            for turn in range(1_000_000):
                if self._stop.is_set():
                    return
                outcome = self._ask(client, f"{number}-{turn}", self._seconds[turn % len(self._seconds)])
                self.outcomes.append(outcome)
                if self.stop_on_close and outcome.fields.get("Connection") == "close":
                    self.has_left.add(number)
                    return

    def _ask(self, client: requests.Session, name: str, seconds: float) -> Outcome:
        started = time.monotonic()
        status = 0
        try:
            if self._is_get:
                answer = client.get(self._url, timeout=30, stream=True)
            else:
                answer = client.post(self._url, json={"id": name, "seconds": seconds}, timeout=30, stream=True)
            status = answer.status_code
            _ = answer.content
        except requests.RequestException as error:
            return Outcome(name, status, started, time.monotonic(), repr(error))
        return Outcome(name, status, started, time.monotonic(), "", answer.headers)

    def wait_for(self, count: int) -> None:
        """Wait until so many more requests have ended."""
        target = len(self.outcomes) + count
        wait_until(lambda: len(self.outcomes) >= target, f"{count} more requests", 20.0)

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status != 200 or outcome.error]

    @property
    def lost(self) -> list[Outcome]:
        """Those that failed before their answer began.

        A server sends the head of an answer and then the body. Killed between the two, it leaves an answer that the
        client has had the beginning of, so nobody can ask again for it.
        """
        return [outcome for outcome in self.failed if outcome.status != 200]
