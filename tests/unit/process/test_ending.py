"""When what is in flight is cut; the rest is in tests/scenarios/process/test_ending.py."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbproxy.config.model import Shutdown
from lbproxy.process import ending
from lbproxy.process.ending import Ending


class InFlight:
    def __init__(self) -> None:
        self.is_cut = False

    def begin_drain(self, now: float) -> None:
        """It is not over by this."""

    def shut_down(self) -> None:
        self.is_cut = True


class Sockets:
    has_queued = False
    filenos: tuple[int, ...] = ()
    is_last: bool | None = None

    def close(self, *, is_last: bool) -> None:
        self.is_last = is_last


@pytest.mark.parametrize("may_hold_off", [True, False])
async def test_the_grace_begins_when_the_process_was_told(monkeypatch: pytest.MonkeyPatch, may_hold_off: bool) -> None:
    """It may have waited for a new process of an upgrade meanwhile."""
    monkeypatch.setattr(ending, "FLUSH_S", 0.0)
    item, sockets = InFlight(), Sockets()
    services: Any = SimpleNamespace(clock=lambda: 110.0, swept=[item], is_draining=False)
    shutdown = Shutdown.model_validate({"grace": "10s", "delay": "3s"})
    own = Ending(
        services,
        cast(Any, sockets),
        None,
        shutdown,
        asyncio.Event(),
        asyncio.Event(),
        lambda: False,
        may_hold_off=may_hold_off,
    )
    await own.drain(100.0)  # a clock that stands still: whatever waits for a later time does so for ever
    assert item.is_cut and services.is_draining
    assert sockets.is_last == may_hold_off
