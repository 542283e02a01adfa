"""One daemon with two scripted servers and a listener for every kind of pool the fault scenarios need.

Starting a daemon costs more than a scenario, so the scenarios of a session share one. `Rig.reset()` brings both servers
and the daemon's idle connections back to nothing before each scenario, `Rig.check()` holds the invariants after it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.client import Client
from tests.support.daemon import Entry, LbProxy, parse_metrics, total
from tests.support.origin import Origin, Peer, Script
from tests.support.waiting import wait_until

SHORT_S = 0.3  # the time-out of each of the pools that have one short time-out
CLIENT_S = 1.0  # every time-out of the `brief` listener: clients that are in time must be quicker
BODY_LIMIT = 64 * 1024  # of the `limited` listener
MIN_RATE = 1000  # of the `min-rate` listener
# Longer than any test waits: what ends within the patience of a client was ended by what the test is about.
_CALM: dict[str, object] = {"connect": "300s", "response_head": "300s", "read": "300s", "write": "300s"}


def _config(a: str, b: str) -> dict[str, object]:
    # The scenarios share the pools: what one makes fail must not eject a server, or use up the retries, of the next.
    calm: dict[str, object] = {"budget": {"min": 1000}}
    off: dict[str, object] = {"health_check": "off", "timeouts": _CALM, "circuit_breaker": "off", "retry": calm}
    both = [a, b]
    short_body = {"request_body": f"{CLIENT_S}s"}
    short_client = {**short_body, "request_head": f"{CLIENT_S}s", "keep_alive": f"{CLIENT_S}s"}
    listeners: list[dict[str, object]] = [
        {"name": "solo", "pool": "solo"},
        {"name": "pair", "pool": "pair"},
        {"name": "idem", "pool": "idem"},
        {"name": "once", "pool": "once"},
        {"name": "no-answer", "pool": "no-answer"},
        {"name": "stall", "pool": "stall"},
        {"name": "brief", "pool": "solo", "timeouts": short_client},
        {"name": "limited", "pool": "solo", "limits": {"body_bytes": BODY_LIMIT}},
        {"name": "slow-body", "pool": "solo", "timeouts": short_body},
        {"name": "min-rate", "pool": "solo", "limits": {"min_rate": MIN_RATE}},
        {"name": "upgrade", "pool": "solo", "upgrade": ["irc", "chat/2"]},
        {"name": "no-upgrade", "pool": "solo", "upgrade": "off"},
        {"name": "half", "pool": "solo", "half_close": "answer"},
        {"name": "tcp", "pool": "tcp", "mode": "tcp"},
    ]
    for listener in listeners:
        listener["bind"] = "127.0.0.1:0"
    pools = {
        "solo": {"servers": [a], **off},
        "pair": {"servers": both, "strategy": "round_robin", **off},
        "idem": {"servers": both, "strategy": "round_robin", **off, "retry": {"idempotent": True, **calm}},
        "once": {"servers": both, "strategy": "round_robin", **off, "retry": {"attempts": 0}},
        "no-answer": {"servers": [a], **off, "timeouts": {**_CALM, "response_head": f"{SHORT_S}s"}},
        "stall": {"servers": [a], **off, "timeouts": {**_CALM, "read": f"{SHORT_S}s"}},
        "tcp": {
            "servers": [a],
            "health_check": "off",
            "circuit_breaker": "off",
            "timeouts": {"connect": "300s", "tunnel": "300s"},
        },
    }
    return {"listeners": listeners, "pools": pools, "shutdown": {"grace": "60s"}}


class Rig:
    """`a` serves the pools with one server, `a` and `b` those with two."""

    def __init__(self, directory: Path) -> None:
        self.a = Origin()
        self.b = Origin()
        self.lb = LbProxy(_config(self.a.address, self.b.address), directory)
        self._before = ""
        self._stderr_at = 0
        self._log_at = 0

    def start(self) -> None:
        self.lb.start()

    def close(self) -> None:
        self.a.close()
        self.b.close()
        if self.lb.is_running:
            self.lb.stop()

    def reset(self) -> None:
        """No connection, no record, no script; a daemon that died is started again."""
        for origin in (self.a, self.b):
            origin.reset()
        if self.lb.is_running and self._has_learned():
            self.lb.stop(allow_errors=True)
        if not self.lb.is_running:
            self.lb.start()
        wait_until(self._is_empty, "the daemon to see that the servers closed its idle connections")
        self._stderr_at = len(self.lb.stderr)
        self._log_at = len(self.lb.access_log())

    def _is_empty(self) -> bool:
        self._before = self.lb.exposition()
        metrics = parse_metrics(self._before, "upstream_connections", "server_inflight")
        return not total(metrics, "upstream_connections") and not total(metrics, "server_inflight")

    def _has_learned(self) -> bool:
        """Does the daemon keep connections less long than before, since servers closed some without a word?

        Several scenarios do just that, and the next one may need a connection that is kept.
        """
        pools = json.loads(self.lb.admin_get("/api/v1/status")[1])["pools"]
        return any(
            server["requests_per_connection"] is not None or server["idle_timeout"]["learned"] is not None
            for pool in pools
            for server in pool["servers"]
        )

    def check(self) -> None:
        """The invariants that hold after every scenario."""
        name = "internal_errors_total"
        metrics = self.lb.check_idle(also=[name])
        assert not self.lb.error_lines(self._stderr_at), self.lb.stderr[self._stderr_at :]
        assert not self.a.violations and not self.b.violations, (self.a.violations, self.b.violations)
        assert total(metrics, name) == total(parse_metrics(self._before, name), name)

    def client(self, listener: str = "solo", **options: float) -> Client:
        """A connection to a listener; close it in the test (`with`)."""
        return Client(self.lb.port(listener), **options)  # type: ignore[arg-type]

    def script(self, *scripts: Script) -> None:
        """Give both servers the same scripts, for pools where either may be picked."""
        self.a.script(*scripts)
        self.b.script(*scripts)

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and target of every complete request that reached either server since the reset."""
        return [(request.method, request.target) for origin in (self.a, self.b) for request in origin.requests]

    def grown(self, name: str, **labels: str) -> float:
        """By how much a metric has grown since the reset."""
        before = parse_metrics(self._before, name)
        return total(self.lb.metrics(name), name, **labels) - total(before, name, **labels)

    def wait_grown(self, name: str, by: float = 1, **labels: str) -> None:
        """Wait for a counter to grow by exactly so much."""
        wait_until(lambda: self.grown(name, **labels) >= by, f"{name}{labels} to grow by {by}")
        assert self.grown(name, **labels) == by

    def log(self, target: str) -> Entry:
        """The one access log line of a target since the reset."""
        found = wait_until(lambda: self._lines(target), f"an access log line for {target}")
        assert len(found) == 1, found
        return found[0]

    def _lines(self, target: str) -> list[Entry]:
        return [entry for entry in self.lb.access_log()[self._log_at :] if entry["target"] == target]


def first_only(fault: Script) -> Script:
    """The fault for the first connection that gets this script, whichever server it is at; later ones are served."""
    pending = [fault]

    def script(c: Peer) -> None:
        (pending.pop() if pending else Peer.serve)(c)

    return script


def after_warm_up(fault: Script) -> Script:
    """Serve one request properly, so that the connection becomes a kept one, then the fault."""

    def script(c: Peer) -> None:
        c.send(c.origin.answer(c.read_request()))
        fault(c)

    return script


def get(target: str, *fields: str, version: str = "1.1") -> bytes:
    """A GET with Host and these further field lines."""
    lines = [f"GET {target} HTTP/{version}", "Host: a", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(target: str, body: bytes = b"hello", *fields: str) -> bytes:
    """A POST with Content-Length."""
    lines = [f"POST {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
