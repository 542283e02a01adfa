"""From the start of several processes to the exit status; what they do meanwhile is in tests/scenarios."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lbproxy.config.loader import load_text
from lbproxy.process.outside import Outside
from lbproxy.process.worker import StartError
from lbproxy.process.workers import foreground
from lbproxy.telemetry import log as operator_log

CONFIG = load_text("listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['127.0.0.1:2']}}\n", "lb.yaml", {}).config


class World:
    """Stands for what is around a Supervisor, and for the supervisor. result: its status, or why it can't start."""

    keeper = None
    arrival = None

    def __init__(self, result: int | StartError) -> None:
        self.result = result
        self.done: list[str] = []

    def run(self) -> int:
        if isinstance(self.result, StartError):
            raise self.result
        return self.result

    def ended(self) -> None:
        self.done.append("ended")

    def close(self) -> None:
        self.done.append("closed")


@pytest.mark.parametrize(("result", "status"), [(0, 0), (1, 1), (StartError("no room", 2), 2)])
def test_the_status_is_that_of_the_supervisor_or_of_the_start(
    result: int | StartError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(result)
    made: list[Any] = []

    def make(*parts: object) -> World:
        made.append(parts)
        return world

    monkeypatch.setattr(foreground, "Supervisor", make)
    monkeypatch.setattr(operator_log, "configure_direct", lambda *parts: world)
    assert foreground.run(CONFIG, str, outside=cast("Outside", world), n_workers=3) == status
    assert made[0][0] is CONFIG and made[0][-1] == 3
    assert world.done == ["ended", "closed"]
