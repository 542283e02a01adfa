"""A real lbproxy for a test: started as a process of its own, on free ports, and stopped at the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from lbproxy.testing.config_text import moved, strangers, written

ADMIN: Final = "admin"
START_S: Final = 30.0
STOP_S: Final = 5.0
POLL_S: Final = 0.02
_LISTENING: Final = re.compile(r"listening name=(\S+) address=(\S+)")


class StartError(Exception):
    """lbproxy refused its config, ended, or did not become ready in time. The text says why, with its log."""


class Proxy:
    """One lbproxy. `with Proxy(config) as proxy:` starts it, waits until it is ready, and stops it.

    config: a dict, YAML, or the path of a file (a Path, or a text without a line break). Its listeners and its admin
    address are moved to free ports of 127.0.0.1, its access log and state file to files of the test; relative names in
    it start at the file, or where the test runs.
    servers: by pool, servers in place of those of the config: `FaultyServer`s, or addresses as text.
    ready: wait until a server has passed a check, as /readyz does; False: only until it accepts connections.
    environ: further variables, also for `${VAR}` in the config. timeout_s: how long a start may take.
    directory: where its files go; a temporary one that it removes by default.
    """

    def __init__(
        self,
        config: Mapping[str, object] | str | Path,
        *,
        servers: Mapping[str, Sequence[object]] | None = None,
        ready: bool = True,
        environ: Mapping[str, str] | None = None,
        timeout_s: float = START_S,
        directory: Path | None = None,
    ) -> None:
        self._config = config
        self._servers = servers or {}
        self._ready = ready
        self._environ = {**os.environ, **(environ or {})}
        self._timeout_s = timeout_s
        self._is_ours = directory is None
        self._directory = directory if directory is not None else Path(tempfile.gettempdir(), f"lbproxy-{uuid4()}")
        self._last_log = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._addresses: dict[str, str] = {}
        self._names: list[str] = []  # of listeners, in the order of the config
        self._tls: set[str] = set()

    def __enter__(self) -> Proxy:
        __tracebackhide__ = True  # a test whose config is wrong is shown by pytest, and not what is in here
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._clean_up()

    def _clean_up(self) -> None:
        if self._is_ours:
            self._last_log = self.log
            shutil.rmtree(self._directory, ignore_errors=True)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and wait until it is ready. Raises StartError."""
        __tracebackhide__ = True
        text, folder = self._text()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._addresses = {}
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lbproxy", "run", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=self._environ,
            )
        assert self._process.stdin is not None
        try:
            with self._process.stdin as given:
                given.write(text.encode())
        except BrokenPipeError:
            pass  # it has ended, and its log says why
        try:
            self._wait_started()
        except BaseException:
            self.kill()
            raise

    def _text(self) -> tuple[str, Path]:
        """The config to run, and where relative names start. Raises StartError with every problem of the user's."""
        from lbproxy.config.loader import load_text
        from lbproxy.config.problems import ConfigError
        from lbproxy.config.source import parse, read_text
        from lbproxy.config.validation import closest

        __tracebackhide__ = True
        config, name, folder = self._config, "config", Path()
        try:
            if isinstance(config, Path) or (isinstance(config, str) and "\n" not in config.strip()):
                name, folder = str(config), Path(config).parent
                text = read_text(config)
            else:
                text = config if isinstance(config, str) else written(config)
            document = parse(text, name, self._environ)
            try:
                load_text(text, name, self._environ)
            except ConfigError as error:
                # What the test puts in another's place, or adds, need not be right in the file.
                given = tuple(f"pools.{pool}" for pool in self._servers)
                problems = [problem for problem in error.problems if not problem.path.startswith(given)]
                if problems or not given:
                    raise ConfigError(tuple(problems)) from None
        except ConfigError as error:
            raise StartError(str(error)) from None
        data: Any = document.data
        for pool in strangers(data, self._servers):
            close = closest(pool, list(data.get("pools") or ()))
            hint = f"did you mean {close}?" if close else "pools are named under `pools` and by listeners"
            raise StartError(f"servers: {name} has no pool {pool}; {hint}")
        made: dict[str, Any] = moved(data, self._servers, self._directory.absolute())
        self._names = [listener["name"] for listener in made["listeners"]]
        self._tls = {item["name"] for item in made["listeners"] if item.get("tls") not in (None, "off", False)}
        return written(made), folder

    def _wait_started(self) -> None:
        __tracebackhide__ = True
        waits_for = ["to listen"]

        def has_started() -> bool:
            __tracebackhide__ = True
            if not self.is_running:
                raise StartError(f"lbproxy ended with status {self.exit_status}:\n{self.log}")
            # The first address of a name is that of its port, if it has one.
            self._addresses = dict(reversed(_LISTENING.findall(self.log)))
            if not {*self._names, ADMIN} <= self._addresses.keys():
                return False
            try:
                status, text = self._ask("/readyz" if self._ready else "/healthz")
            except OSError:
                return False
            waits_for[0] = f"to become ready: {text.strip()}"
            return status == 200

        if not _wait(has_started, self._timeout_s):
            raise StartError(f"lbproxy took more than {self._timeout_s:g} s {waits_for[0]}\n{self.log}")

    def stop(self) -> None:
        """End it as a service manager does (SIGTERM); after 5 s at once. Nothing if it has ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for _ in range(2):  # the second signal does not wait for clients
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
                return
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as if the machine had gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    @property
    def is_running(self) -> bool:
        """Has it started, and not ended?"""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    # --- where it is ------------------------------------------------------------------------------------------------

    def address(self, listener: str = "") -> str:
        """`127.0.0.1:PORT`, or `unix:PATH`, of a listener; of the first one by default. `admin`: the admin address."""
        name = listener or self._names[0]
        if name not in self._addresses:
            raise LookupError(f"there is no listener {name!r}; listeners: {', '.join(self._names)}")
        return self._addresses[name]

    def url(self, path: str = "/", listener: str = "") -> str:
        """A URL at a listener; at the first one by default."""
        scheme = "https" if (listener or self._names[0]) in self._tls else "http"
        return f"{scheme}://{self.address(listener)}{path}"

    # --- what it says -----------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """Its own messages so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else self._last_log

    @property
    def _log_path(self) -> Path:
        return self._directory / "lbproxy.log"

    def access_log(self, count: int = 0, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The lines of the access log so far, as objects. count: wait until there are as many.

        Raises TimeoutError.
        """
        path = self._directory / "access.log"

        def lines() -> list[bytes]:
            return path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # the last is empty, or not complete

        if not _wait(lambda: len(lines()) >= count, timeout_s):
            raise TimeoutError(f"{len(lines())} lines in the access log after {timeout_s:g} s, not {count}")
        return [json.loads(line) for line in lines()]

    def status(self) -> dict[str, Any]:
        """What `lbproxy status --json` prints."""
        return dict(json.loads(self._ask("/api/v1/status")[1]))

    def state(self, pool: str, server: object) -> str:
        """The state of a server: `up`, `down`, `ejected`, ... server: its name or address, or a FaultyServer."""
        for known in self.status()["pools"]:
            for item in known["servers"]:
                if known["name"] == pool and str(server) in (item["name"], item["address"]):
                    return str(item["state"])
        raise LookupError(f"there is no server {server} in a pool {pool}")

    def wait_state(self, pool: str, server: object, state: str, timeout_s: float = 10.0) -> None:
        """Wait until a server is in a state. Raises TimeoutError."""
        if not _wait(lambda: self.state(pool, server) == state, timeout_s):
            found = self.state(pool, server)
            raise TimeoutError(f"server {server} of pool {pool} is {found} after {timeout_s:g} s, not {state}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels, 0 if there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        return sum(
            sample.value
            for family in text_string_to_metric_families(self._ask("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _ask(self, path: str) -> tuple[int, str]:
        host, _, port = self.address(ADMIN).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def _wait(is_so: Callable[[], bool], timeout_s: float) -> bool:
    """Does it become so in time?"""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
