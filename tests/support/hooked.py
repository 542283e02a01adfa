"""The daemon with something of its environment under the test's control: the wall clock, name look-ups, defects.

`python -m tests.support.hooked DIRECTORY ARGUMENTS...` replaces what the hooks need and then runs the real command. The
hooks read files in DIRECTORY each time they are used, so that a test changes them while the daemon runs:

    clock     seconds that the wall clock (time.time) is wrong by
    names     lines `name address address ...`; `name !` fails, as does a name that is not there; `name ~` has no answer
              until the file says something else
    defect    `module:Class.method`: its next call raises, once; the file is removed when that has happened
"""

from __future__ import annotations

import functools
import importlib
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from lbproxy.control.discovery import dns
from lbproxy.telemetry import log_limits
from tests.support.build import ROOT
from tests.support.daemon import LbProxy
from tests.support.waiting import wait_until


class InjectedDefect(Exception):
    """Raised by the hook; no code expects it."""


class HookedDaemon(LbProxy):
    """The daemon under `hooked`."""

    def start(self, env: Mapping[str, str] | None = None) -> Self:
        """Runs the checkout's sources: the methods of a compiled class can't be replaced."""
        return super().start({"PYTHONPATH": str(ROOT), **(env or {})})

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.hooked", str(self.directory), *DEFECTS]

    def set_clock(self, offset_s: float) -> None:
        self._write("clock", f"{offset_s}")

    def set_names(self, **names: str) -> None:
        """`a="127.0.0.1 127.0.0.2"`; "!" is a failure, "~" no answer, "" an empty one."""
        self._write("names", "".join(f"{name} {addresses}\n" for name, addresses in names.items()))

    def arm(self, method: str) -> None:
        self._write("defect", method)

    def has_fired(self) -> bool:
        return not (self.directory / "defect").exists()

    def wait_fired(self, method: str) -> None:
        wait_until(self.has_fired, f"{method} to be called")

    def _write(self, name: str, text: str) -> None:
        part = self.directory / f"{name}.part"
        part.write_text(text)
        part.rename(self.directory / name)


# What a protocol callback does first, one of its parts each: the callbacks themselves are what must contain the defect.
DEFECTS = (
    "lbproxy.dataplane.client.http1:Http1Connection._connected",
    "lbproxy.dataplane.client.http1:Http1Connection._begin",
    "lbproxy.dataplane.client.http1:Http1Connection._other_data",
    "lbproxy.dataplane.client.http1:Http1Connection._eof_received",
    "lbproxy.dataplane.client.http1:Http1Connection._leave",
    "lbproxy.dataplane.client.http1:Http1Connection.respond",
    "lbproxy.dataplane.exchange.client_facts:ClientFacts.forwarding_lines",
    "lbproxy.dataplane.client.http1:Http1Connection.sweep",
    "lbproxy.dataplane.exchange.exchange:Exchange.start",
    "lbproxy.dataplane.exchange.exchange:Exchange.client_left",
    "lbproxy.dataplane.exchange.exchange:Exchange.client_blocked",
    "lbproxy.dataplane.exchange.exchange:Exchange.client_unblocked",
    "lbproxy.dataplane.exchange.attempt:Attempt.upstream_blocked",
    "lbproxy.dataplane.exchange.attempt:Attempt.upstream_unblocked",
    "lbproxy.dataplane.exchange.attempt:Attempt.response_received",
    "lbproxy.dataplane.exchange.attempt:Attempt.response_body",
    "lbproxy.dataplane.exchange.attempt:Attempt.response_spliced",
    "lbproxy.dataplane.exchange.attempt:Attempt.opened",
    "lbproxy.dataplane.exchange.attempt_books:AttemptBooks.timeouts",
    "lbproxy.dataplane.server.upstream:UpstreamConnection._connected",
    "lbproxy.dataplane.server.upstream:UpstreamConnection._other_data",
    "lbproxy.dataplane.server.upstream:UpstreamConnection._final_head",
    "lbproxy.dataplane.server.upstream:UpstreamConnection._ended",
    "lbproxy.dataplane.tcp.session:TcpSession.start",
    "lbproxy.dataplane.exchange.relay_end:RelayEnd._leave_to_kernel",
    "lbproxy.dataplane.exchange.relay:Relay.direction_ended",
    "lbproxy.dataplane.exchange.relay:Relay.end_lost",
)


def _hook_clock(file: Path) -> None:
    real = time.time

    def wrong() -> float:
        try:
            return real() + float(file.read_text())
        except FileNotFoundError:
            return real()

    time.time = wrong


def _hook_names(file: Path) -> None:
    def look_up(host: str) -> list[str]:
        while True:
            answers = dict(line.partition(" ")[::2] for line in file.read_text().splitlines())
            answer = answers.get(host, "!")
            if answer == "!":
                raise socket.gaierror(socket.EAI_NONAME, "scripted failure")
            if answer != "~":
                return answer.split()
            time.sleep(0.02)

    dns.blocking_look_up = look_up


def _hook_defect(file: Path, method: str) -> None:
    module, _, path = method.partition(":")
    owner, _, name = path.partition(".")
    where = getattr(importlib.import_module(module), owner)
    real: Callable[..., Any] = getattr(where, name)

    @functools.wraps(real)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        if file.exists() and file.read_text() == method:
            file.unlink()
            raise InjectedDefect(method)
        return real(*args, **kwargs)

    setattr(where, name, hooked)


def main(arguments: list[str]) -> int:
    directory = Path(arguments[0])
    split = arguments.index("--config")
    _hook_clock(directory / "clock")
    if (directory / "names").exists():
        _hook_names(directory / "names")
    log_limits.TRACEBACKS_A_SECOND = len(DEFECTS) + 1  # type: ignore[misc]  # each test wants to see its own
    for method in arguments[1:split]:
        _hook_defect(directory / "defect", method)
    from lbproxy.cli import main as command

    sys.argv = ["lbproxy", *arguments[split:]]
    return command()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
