"""Starts the real daemon as a subprocess and looks at it from outside only: sockets, metrics, logs, /proc."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import build, nursery
from tests.support.descriptors import clients
from tests.support.waiting import PATIENCE_S, POLL_S, rest_s, wait_until

START_S = 60.0  # a start takes 14 s when thirty processes want the two cores, and longer from sources
STOP_S = 60.0  # takes 0.1 s, and ten times as long on a busy machine; what hangs, hangs for ever
_LISTENING = re.compile(r"listening name=(\S+) address=(\S+)")
_ERROR_LINE = re.compile(
    r"\b(ERROR|CRITICAL)\b|Traceback \(most recent call last\)|[Tt]ask was destroyed|never awaited"
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = frozenset[tuple[str, str]]
Metrics = dict[tuple[str, Labels], float]
Entry = dict[str, object]
Settings = Mapping[str, object]

# Gauges that must be 0 when no client is there.
_IDLE_GAUGES = ("server_inflight", "queue_depth", "client_connections")
_LOG_TAIL_BYTES = 4096
_WATCHED = (*_IDLE_GAUGES, "upstream_connections")


class _PlainDumper(yaml.SafeDumper):
    """No anchors: every value is written out where it stands, as a person would."""

    def ignore_aliases(self, data: object) -> bool:
        return True


n_workers = 1
"""Of daemons whose config does not say how many; see tests/support/doubled.py."""


class LbProxy:
    """One running daemon. Bind listeners to `127.0.0.1:0`; the ports are found in the daemon's own log."""

    def __init__(self, config: Settings, directory: Path, *, stdout: int = subprocess.DEVNULL, nofile: int = 0) -> None:
        """stdout: a descriptor. nofile: the limit on open files, 0 for that of the tests."""
        self._stdout = stdout
        self._nofile = nofile
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.access_log_path = directory / "access.log"
        self.stderr_path = directory / "stderr.log"
        self.config_path = directory / "lb.yaml"
        complete = {
            "admin": {"bind": "127.0.0.1:0"},
            "access_log": {"path": str(self.access_log_path), "format": "json"},
            **({"workers": n_workers} if n_workers > 1 else {}),
            **config,
        }
        self.config_path.write_text(yaml.dump(complete, Dumper=_PlainDumper, sort_keys=False))
        self._log_inode = self._log_end = 0
        self._log_tail = b""  # of what was read: by this it is known that it is still the same text
        self._log_entries: list[Entry] = []
        self.addresses: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | nursery.Nursling | None = None
        self.baseline_fds = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.stop()
        else:
            self.kill()

    # --- life ---

    def start(self, env: Mapping[str, str] | None = None) -> Self:
        """Start and wait until every listener and the admin address answer."""
        self.process = self._started(env or {})
        try:
            count = len(yaml.load(self.config_path.read_text(), Loader=yaml.CSafeLoader)["listeners"])
            wait_until(lambda: self._is_listening(count), "the daemon to say where it listens", START_S)
            wait_until(lambda: self._admin_status("/healthz") == 200, "/healthz to answer 200", START_S)
            self.baseline_fds = self._settled_fds()
        except BaseException:
            self.process.kill()  # nobody else would
            self.process.wait()
            raise
        return self

    def _started(self, env: Mapping[str, str]) -> subprocess.Popen[bytes] | nursery.Nursling:
        arguments = ["--config", str(self.config_path)]
        with self.stderr_path.open("wb") as stderr, Path(os.devnull).open("wb") as devnull:
            stdout = devnull.fileno() if self._stdout == subprocess.DEVNULL else self._stdout
            if self._program() == [*build.COMMAND] and nursery.can_start(env):
                return nursery.start(arguments, env, stdout=stdout, stderr=stderr.fileno(), nofile=self._nofile)
            limit = ["sh", "-c", f'ulimit -n {self._nofile}; exec "$@"', "sh"] if self._nofile else []
            command = [*limit, *self._program(), *arguments]
            return subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **env})

    def _program(self) -> list[str]:
        return [*build.COMMAND]

    def _settled_fds(self) -> int:
        """The lowest of some counts: right after the start the probe's own connection may still be closing."""
        counts = []
        for _ in range(10):
            counts.append(self.fd_count())
            time.sleep(POLL_S)
        return min(counts)

    def _is_listening(self, count: int) -> bool:
        if not self.is_running:
            raise AssertionError(f"the daemon ended with status {self.exit_code}:\n{self.stderr}")
        self.addresses = dict(_LISTENING.findall(self.stderr))
        return "admin" in self.addresses and len(self.addresses) > count

    def _admin_status(self, path: str) -> int:
        try:
            return self.admin_get(path)[0]
        except OSError:
            return 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Nothing once it has ended."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, *, exit_code: int = 0, allow_errors: bool = False, timeout_s: float = STOP_S) -> None:
        """Wait for idle gauges, SIGTERM, and check the exit status and the log."""
        assert self.process is not None
        try:
            self.check_idle()
            self.signal(signal.SIGTERM)
            try:
                code = self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"still running {timeout_s:g} s after SIGTERM:\n{self.stderr[-2000:]}") from None
        finally:
            self.kill()
        assert code == exit_code, f"exit status {code}, expected {exit_code}:\n{self.stderr[-2000:]}"
        if not allow_errors:
            assert not self.error_lines(), self.stderr[-4000:]

    def kill(self) -> None:
        """SIGKILL if it still runs."""
        if self.process is not None:
            if self.is_running:
                self.process.kill()
            self.process.wait(STOP_S)

    # --- what it says ---

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def wait_logged(self, text: str, times: int = 1) -> None:
        """Wait for its log to say this; what it counts and what it does may be seen before the line is written."""
        wait_until(lambda: self.stderr.count(text) >= times, f"the log to say {text!r}")
        assert self.stderr.count(text) == times

    def warnings(self) -> list[str]:
        """But those that say how busy the machine is."""
        return [line for line in self.stderr.splitlines() if " WARNING " in line and "the event loop was" not in line]

    def error_lines(self, since: int = 0) -> list[str]:
        """Lines of stderr from offset `since` on that no run may have: ERROR, tracebacks, asyncio's complaints."""
        return [line for line in self.stderr[since:].splitlines() if _ERROR_LINE.search(line)]

    def port(self, name: str) -> int:
        """The port of a listener by its configured name, or of `admin`."""
        return int(self.addresses[name].rpartition(":")[2])

    def admin_get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET on the admin address."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port("admin"), timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self) -> Entry:
        """The JSON of /api/v1/status."""
        code, body = self.admin_get("/api/v1/status")
        assert code == 200, (code, body)
        parsed: Entry = json.loads(body)
        return parsed

    def pool_status(self, name: str = "") -> Entry:
        """What the status says of one pool; without a name, of the first."""
        pools = self.status()["pools"]
        assert isinstance(pools, list)
        found: Entry = next(pool for pool in pools if name in ("", pool["name"]))
        return found

    def server_status(self, pool: str = "") -> list[Entry]:
        """What the status says of the servers of one pool; without a name, of the first."""
        servers = self.pool_status(pool)["servers"]
        assert isinstance(servers, list)
        return servers

    def exposition(self, *only: str) -> str:
        """The text of /metrics, or what it says of these metrics (names without prefix)."""
        query = "&".join(f"name[]=lbproxy_{name}" for name in only)
        code, body = self.admin_get(f"/metrics?{query}" if query else "/metrics")
        assert code == 200, (code, body)
        return body.decode()

    def metrics(self, *only: str) -> Metrics:
        """The samples of /metrics by name and labels: all, or those of these metrics (names without prefix)."""
        return parse_metrics(self.exposition(*only), *only)

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all samples of `lbproxy_<name>` that have these labels."""
        return total(self.metrics(name), name, **labels)

    def wait_metric(self, name: str, at_least: float, **labels: str) -> None:
        """Wait until the sum of a metric is at least that much."""
        wait_until(lambda: self.metric(name, **labels) >= at_least, f"{name}{labels} >= {at_least}")

    def access_log(self) -> list[Entry]:
        """The complete lines of the access log so far, each read and parsed once: thousands of tests look at one that
        grows, and each of them many times."""
        with contextlib.suppress(FileNotFoundError), self.access_log_path.open("rb") as file:
            found, end = os.fstat(file.fileno()), self._log_end
            file.seek(end - len(self._log_tail))
            text = file.read()
            if found.st_ino != self._log_inode or not text.startswith(self._log_tail):  # another file by now
                self._log_inode, self._log_tail, self._log_entries, end = found.st_ino, b"", [], 0
                file.seek(0)
                text = file.read()
            complete = text[len(self._log_tail) : text.rfind(b"\n") + 1]
            self._log_entries += [json.loads(line) for line in complete.split(b"\n")[:-1]]
            self._log_end = end + len(complete)
            self._log_tail = (self._log_tail + complete)[-_LOG_TAIL_BYTES:]
            return [*self._log_entries]
        return []

    def entries(self, target: str, count: int = 1) -> list[Entry]:
        """Wait for (at least) `count` log lines of one target."""

        def found() -> list[Entry]:
            lines = [entry for entry in self.access_log() if entry["target"] == target]
            return lines if len(lines) >= count else []

        return wait_until(found, f"{count} access log line(s) for {target}")

    def entry(self, target: str) -> Entry:
        """The one log line of a target."""
        found = self.entries(target)
        assert len(found) == 1, found
        return found[0]

    # --- what it holds ---

    def fd_count(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, that the daemon has used; a busy machine does not change it much."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Resident set size."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def check_idle(self, timeout_s: float = PATIENCE_S, also: Sequence[str] = ()) -> Metrics:
        """With no client left: nothing in flight, nothing queued, no upstream connection in use, no fd kept.

        Returns the samples of these gauges, and of the metrics in `also`, of the moment when that was so.
        """
        assert self.is_running, f"the daemon ended with status {self.exit_code}:\n{self.stderr[-2000:]}"
        since = time.monotonic()
        while True:
            began = time.monotonic()
            metrics = self.metrics(*_WATCHED, *also)
            leftovers = self._leftovers(metrics)
            if not leftovers:
                return metrics
            now = time.monotonic()
            assert now - since < timeout_s, f"not idle after {timeout_s:g} s: {leftovers}; {clients(self.pid)}"
            time.sleep(rest_s(now - began, now - since))

    def _leftovers(self, metrics: Metrics) -> dict[str, float]:
        metrics = {key: value for key, value in metrics.items() if key[0].removeprefix("lbproxy_") in _WATCHED}
        found = {
            f"{name}{dict(labels)}": value
            for (name, labels), value in metrics.items()
            if value and not (name == "lbproxy_upstream_connections" and ("state", "idle") in labels)
        }
        kept = total(metrics, "upstream_connections", state="idle")
        surplus = self.fd_count() - self.baseline_fds - kept
        if surplus > 0:
            found["file descriptors above the baseline"] = surplus
        return found


def parse_metrics(text: str, *only: str) -> Metrics:
    """Samples by name and labels. Parsing all histograms takes tens of milliseconds, hence the choice by name.

    Thousands of tests ask for some names, so those are read without the parser, in a fifth of its time; whether the
    text is what a parser takes is asked by tests that read all of it.
    """
    if only:
        samples = re.finditer(rf"\n(lbproxy_(?:{'|'.join(only)}))(?:\{{(.*)\}})? (\S+)", f"\n{text}")
        return {
            (name, frozenset((label, _unescaped(value)) for label, value in _LABEL.findall(labels or ""))): float(value)
            for name, labels, value in (sample.groups() for sample in samples)
        }
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value) if "\\" in value else value


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum over the samples of `lbproxy_<name>` that have all these labels."""
    wanted = set(labels.items())
    return sum(value for (key, have), value in metrics.items() if key == f"lbproxy_{name}" and wanted <= have)
