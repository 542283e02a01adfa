"""What the event loop catches is counted, logged, and ends the connection it belongs to."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from lbproxy.process.loop_errors import handle, install


class Transport:
    def __init__(self, error: Exception | None = None) -> None:
        self.n_aborts = 0
        self._error = error

    def abort(self) -> None:
        self.n_aborts += 1
        if self._error is not None:
            raise self._error


class Told:
    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []

    def __call__(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))


@pytest.mark.parametrize("second", [None, RuntimeError("closed"), OSError("closed")])
def test_a_defect_is_told_and_its_connection_ends(second: Exception | None) -> None:
    told, transport, error = Told(), Transport(second), KeyError("x")
    handle({"message": "resume_writing() failed", "exception": error, "transport": transport}, told)
    assert told.errors == [("the event loop (resume_writing() failed)", error)]
    assert transport.n_aborts == 1


def test_a_defect_without_a_connection_is_told() -> None:
    told, error = Told(), KeyError("x")
    handle({"message": "Exception in callback f", "exception": error}, told)
    assert [found for _, found in told.errors] == [error]


LATE = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


@pytest.mark.parametrize(
    "context",
    [
        {"message": "slow"},
        {"message": "lost", "exception": ConnectionResetError()},
        {"message": "Fatal error on SSL protocol", "exception": LATE},
    ],
)
def test_the_network_s_doing_is_no_defect(context: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING, "lbproxy"):
        handle(context, told)
    assert not told.errors and str(context["message"]) in caplog.text


def test_a_closed_handler_elsewhere_is_a_defect() -> None:
    told = Told()
    handle({"message": "Exception in callback f", "exception": LATE}, told)
    handle({"message": "Fatal error on SSL protocol", "exception": RuntimeError("another")}, told)
    assert len(told.errors) == 2


def test_the_loop_is_told_to_use_it() -> None:
    class Loop:
        handler: Any = None

        def set_exception_handler(self, handler: Any) -> None:
            self.handler = handler

    loop, told = Loop(), Told()
    install(cast(asyncio.AbstractEventLoop, loop), told)
    loop.handler(loop, {"message": "m", "exception": ValueError()})
    assert len(told.errors) == 1
