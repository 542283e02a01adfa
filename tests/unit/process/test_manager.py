"""What a service manager is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lbproxy.process.manager import Manager, manager_of


def manager(watchdog_s: float | None = None) -> tuple[Manager, list[str]]:
    sent: list[str] = []
    return Manager(lambda data: sent.append(data.decode()), watchdog_s, monotonic_ns=lambda: 5_000_999), sent


def test_each_message() -> None:
    told, sent = manager()
    told.ready("serving")
    told.reloading()
    told.ready("serving\nREADY=0", 7)
    told.main_pid(8)
    told.stopping()
    assert sent == [
        "READY=1\nSTATUS=serving",
        "RELOADING=1\nMONOTONIC_USEC=5000\nSTATUS=reading the config file",
        "READY=1\nSTATUS=serving READY=0\nMAINPID=7",
        "MAINPID=8",
        "STOPPING=1\nSTATUS=finishing what is in flight",
    ]
    told.silence()
    told.stopping()
    assert len(sent) == 5, "another process speaks"


class Later:
    """What a loop calls later, by hand."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, callback: object, *args: object) -> Later:
        self.delays.append(delay)
        return self

    def cancel(self) -> None:
        self.delays.clear()


def test_the_watchdog_is_fed_twice_as_often_as_it_wants_until_another_process_serves() -> None:
    told, sent = manager(3.0)
    loop: Any = Later()
    told.watch(loop)
    assert sent == ["WATCHDOG=1"] and loop.delays == [1.5]
    told.silence()
    assert loop.delays == []
    told.watch(loop)
    assert sent == ["WATCHDOG=1"] and loop.delays == []
    without, sent = manager()
    without.watch(loop)
    assert sent == [] and loop.delays == []


def test_a_process_without_a_loop_feeds_it_itself() -> None:
    told, sent = manager(3.0)
    assert told.feed() == 1.5
    assert sent == ["WATCHDOG=1"]
    assert manager()[0].feed() is None


def test_what_another_process_of_the_same_lbproxy_tells_is_passed_on() -> None:
    told, sent = manager()
    told.forward(b"READY=1\nSTATUS=serving")
    assert sent == ["READY=1\nSTATUS=serving"]


def test_a_manager_that_does_not_listen_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(data: bytes) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    told = Manager(refuse)
    with caplog.at_level(logging.WARNING):
        told.ready("serving")
        told.stopping()
    assert len(caplog.messages) == 1 and "is not told READY=1" in caplog.messages[0]


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({}, {}),
        ({"NOTIFY_SOCKET": ""}, {}),
        ({"NOTIFY_SOCKET": "tcp:1"}, {}),
        ({"NOTIFY_SOCKET": "/run/x"}, {"NOTIFY_SOCKET": "/run/x"}),
        (
            {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "7", "WATCHDOG_PID": "5"},
            {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "7"},
        ),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "7"}, {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "7"}),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "7", "WATCHDOG_PID": "6"}, {"NOTIFY_SOCKET": "@x"}),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"}, {"NOTIFY_SOCKET": "@x"}),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"}, {"NOTIFY_SOCKET": "@x"}),
        ({"WATCHDOG_USEC": "7"}, {}),
    ],
)
def test_the_variables_leave_the_environment_and_go_to_the_next_process(
    environ: dict[str, str], kept: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoSocket:
        def settimeout(self, patience_s: float) -> None:
            assert patience_s <= 0.1

    monkeypatch.setattr("lbproxy.process.manager.socket.socket", lambda *_: NoSocket())
    left = {**environ, "HOME": "/"}
    assert manager_of(left, 5).variables == kept
    assert left == {"HOME": "/"}
