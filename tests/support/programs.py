"""Real servers that are spoken to through lbproxy: PostgreSQL, Redis, iperf3, gRPC, HAProxy, NGINX.

Each is a child process that is ended by its pid; ports are chosen by the kernel, unix sockets are in the test's folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.build import ROOT
from tests.support.servers import missing, needed
from tests.support.waiting import wait_until

START_S = 60.0
STOP_S = 30.0


def free_port() -> int:
    """A port that was free a moment ago; `started` tries again when somebody else was faster."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Program:
    """A running program. `log` is what it has said on both outputs."""

    def __init__(self, command: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None) -> None:
        self.log_path = log_path
        with log_path.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.is_running:
            self.process.kill()
        self.process.wait(STOP_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end; SIGKILL if it does not."""
        if self.is_running:
            self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.kill()


def answers(port: int) -> bool:
    """Does somebody listen there?"""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def started(
    command: Callable[[int], Sequence[str]], folder: Path, name: str, is_ready: Callable[[int], bool] = answers
) -> Iterator[tuple[Program, int]]:
    """A program on a port of its own: `command` makes the command line from the port."""
    for attempt in range(3):
        port = free_port()
        program = Program(command(port), folder / f"{name}-{attempt}.log")
        try:
            wait_until(lambda: is_ready(port) or not program.is_running, f"{name} to answer", START_S)  # noqa: B023
            if program.is_running:
                yield program, port
                return
        finally:
            program.end()
    raise AssertionError(f"{name} does not start:\n{program.log}")


# --- Redis ------------------------------------------------------------------------------------------------------------


def redis(folder: Path, name: str = "redis") -> contextlib.AbstractContextManager[tuple[Program, int]]:
    """A Redis that keeps nothing on disk."""
    program = needed("redis-server")

    def command(port: int) -> list[str]:
        settings = {"bind": "127.0.0.1", "port": str(port), "save": "", "appendonly": "no", "dir": str(folder)}
        return [program, *(word for key, value in settings.items() for word in (f"--{key}", value))]

    return started(command, folder, name)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _postgres_folder() -> Path:
    """Where Debian keeps the server's programs, which are not on the PATH; the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        missing("postgresql")
    return found[-1].parent


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root; the child is still ours to end, because setpriv replaces itself."""
    if os.geteuid() != 0:
        return []
    return [needed("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class Postgres:
    """Servers with equal data that listen on unix sockets and on no port: `.s.PGSQL.5432` in a folder for each."""

    def __init__(self) -> None:
        # Not in the test's own folder, which another user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="lbpg", dir="/tmp"))
        os.chmod(self.folder, 0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self.servers: list[Program] = []
        self._bin = _postgres_folder()

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [*_as_postgres(), *command], cwd="/", env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def start(self, count: int) -> None:
        """Make the data, copy it, and start so many servers; whatever happens, `close` ends them."""
        initdb = str(self._bin / "initdb")
        self._run(initdb, "-D", f"{self.folder}/data0", "-U", "tester", "-A", "trust", "--no-sync")
        for number in range(1, count):
            self._run("cp", "-a", f"{self.folder}/data0", f"{self.folder}/data{number}")
        for number in range(count):
            self._start(number)

    def _start(self, number: int) -> None:
        run = self.folder / str(number)
        run.mkdir()
        if os.geteuid() == 0:
            shutil.chown(run, "postgres", "postgres")
        settings = {"listen_addresses": "", "unix_socket_directories": str(run), "fsync": "off"}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [*_as_postgres(), str(self._bin / "postgres"), "-D", f"{self.folder}/data{number}", *options]
        server = Program(command, self.folder / f"log{number}", {"LC_ALL": "C"})
        self.servers.append(server)
        wait_until(lambda: self._listens(number) or not server.is_running, "PostgreSQL to listen", START_S)
        assert server.is_running, server.log

    def path(self, number: int) -> str:
        return f"{self.folder}/{number}/.s.PGSQL.5432"

    def _listens(self, number: int) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(self.path(number)) == 0

    def close(self) -> None:
        for server in self.servers:
            server.end(signal.SIGQUIT)  # "immediate": its sessions end too
        shutil.rmtree(self.folder, ignore_errors=True)


# --- gRPC -------------------------------------------------------------------------------------------------------------


def grpc_echo(folder: Path, name: str) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    """A gRPC server that sends messages back, with its name."""
    return started(
        lambda port: [sys.executable, str(ROOT / "tests" / "support" / "grpc_echo.py"), str(port), name], folder, name
    )
