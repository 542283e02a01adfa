"""gRPC servers that are restarted one after the other, or killed, while calls come at a fixed rate.

The calls are not idempotent: none may be executed twice, and none may fail but those that a killed server had.
LBPROXY_GRPC_RATE=200 and LBPROXY_GRPC_ROUNDS=5 in the environment is what `make soak` does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.support.build import ROOT
from tests.support.crew import CrewProxy
from tests.support.daemon import LbProxy
from tests.support.programs import Program, answers, free_port
from tests.support.waiting import wait_until

RATE = int(os.environ.get("LBPROXY_GRPC_RATE", "50"))
ROUNDS = int(os.environ.get("LBPROXY_GRPC_ROUNDS", "1"))
CALL_S = 120.0
N_CHANNELS = 4
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@dataclass
class Call:
    """One that was made. Seconds of the monotonic clock. error: what it failed with."""

    message: bytes
    began_at: float
    error: str = ""


@dataclass
class Calls:
    """So many calls a second of one method, whatever comes of them, on a few channels."""

    port: int
    method: str
    sent: list[Call] = field(default_factory=list)
    n_over: int = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="calls")

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self._thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more are over."""
        before = self.n_over
        wait_until(lambda: self.n_over >= before + count, f"{count} calls more")

    @property
    def failed(self) -> list[Call]:
        return [call for call in self.sent if call.error]

    def _run(self) -> None:
        began_at = time.monotonic()
        with contextlib.ExitStack() as stack:
            methods = [
                stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{self.port}", options=OPTIONS)).unary_unary(
                    f"/echo.Echo/{self.method}"
                )
                for _ in range(N_CHANNELS)
            ]
            while not self.is_over:
                call = Call(b"%d" % len(self.sent), time.monotonic())
                self.sent.append(call)
                made = methods[len(self.sent) % N_CHANNELS].future(call.message, timeout=CALL_S, wait_for_ready=True)
                made.add_done_callback(lambda done, call=call: self._ended(call, done))
                time.sleep(max(0.0, began_at + len(self.sent) / RATE - time.monotonic()))
            wait_until(lambda: self.n_over == len(self.sent), "every call to end")

    def _ended(self, call: Call, done: grpc.Future) -> None:
        error = done.exception()
        if error is not None:
            call.error = f"{error.code()} {error.details()}"
        with self._lock:
            self.n_over += 1


class Stage:
    """Three servers that can be started again on their ports, and the daemon before them."""

    def __init__(self, folder: Path, workers: int, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self.ports = [free_port() for _ in range(3)]
        self.programs: list[Program] = []
        stack.callback(self._end)
        self.running = [self.start(number) for number in range(3)]
        check = {"type": "grpc", "interval": "250ms", "timeout": "60s", "rise": 1, "fall": 1}
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"127.0.0.1:{port}" for port in self.ports],
                    "protocol": "h2",
                    "health_check": check,
                }
            },
        }
        lb = CrewProxy({"workers": workers, **config}, folder / "lb") if workers > 1 else LbProxy(config, folder / "lb")
        self.lb: LbProxy = stack.enter_context(lb)

    def start(self, number: int) -> Program:
        """The server of that number, on its port."""
        name = f"{number}-{len(self.programs)}"
        command = [sys.executable, str(ROOT / "tests" / "support" / "grpc_echo.py"), str(self.ports[number]), name]
        program = Program(command, self._folder / f"{name}.log")
        self.programs.append(program)
        wait_until(lambda: answers(self.ports[number]) or not program.is_running, f"{name} to answer", 60.0)
        assert program.is_running, program.log
        return program

    def restart(self, number: int) -> None:
        """The next process of a server whose last one has ended; until it is seen to be up."""
        self.running[number] = self.start(number)
        wait_until(lambda: self.lb.server_status("p")[number]["state"] == "up", "the server to be back")

    def executed(self) -> Counter[bytes]:
        """How often each message was."""
        return Counter(
            line.removeprefix("once ").encode()
            for program in self.programs
            for line in program.log.split("\n")
            if line.startswith("once ")
        )

    def _end(self) -> None:
        for program in self.programs:
            program.kill()


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        yield Stage(tmp_path, int(request.param), stack)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rolling_restart_loses_no_call_and_repeats_none(stage: Stage) -> None:
    """Each server says NOT_SERVING, and ends with GOAWAY when that is known."""
    with Calls(stage.lb.port("in"), "Once") as calls:
        for number in [*range(3)] * ROUNDS:
            calls.more(RATE)
            stage.running[number].process.send_signal(signal.SIGHUP)
            stage.running[number].process.wait(60.0)
            stage.restart(number)
        calls.more(RATE)
    assert calls.failed == []
    assert stage.executed() == Counter(call.message for call in calls.sent)
    stage.lb.check_idle()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_is_killed_takes_along_what_it_had_and_nothing_else(stage: Stage) -> None:
    with Calls(stage.lb.port("in"), "Slow") as calls:
        for number in [*range(3)] * ROUNDS:
            calls.more(RATE)
            n_failed = len(calls.failed)
            stage.running[number].kill()
            killed_at = time.monotonic()
            calls.more(RATE)
            lost = calls.failed[n_failed:]
            assert [call for call in lost if call.began_at > killed_at] == []
            # What was under way at one of three servers, and some that were on the way: far less than half a second's.
            assert len(lost) <= RATE / 2 + 10, lost
            stage.restart(number)
        calls.more(RATE)
    assert all("UNAVAILABLE" in call.error for call in calls.failed), calls.failed
    executed = stage.executed()
    assert max(executed.values()) == 1
    # Those that failed may have been executed; the others were.
    assert {call.message for call in calls.sent if not call.error} <= executed.keys()
    stage.lb.check_idle()
