"""What people are told of servers and pools; what the controller makes of it is in test_controller.py."""

from __future__ import annotations

import json
import logging
import random

import pytest

from lbproxy.address import parse_address
from lbproxy.control.event_log import EventLog
from lbproxy.control.metrics import Registry
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.process.flips import Flips
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import SERVER, Slots


def test_a_change_is_counted_logged_and_an_event(caplog: pytest.LogCaptureFixture) -> None:
    strategy = LeastConnections({}, random.Random(1))
    server = Server("a", parse_address("10.0.0.1:80"))
    pool = Pool("p", [server], strategy, strategy)
    registry, row, events = Registry("1"), Slots().allocate(SERVER), EventLog(lambda: 0.0)
    registry.add(SERVER, ("p", "a"), row)
    flips = Flips(registry, events, ThrottledLog(logging.getLogger("lbproxy.control"), clock=lambda: 0.0))
    pool.on_flip(lambda server, old, new: flips.flipped(pool, server, old, new))
    pool.set_health(server, Health.DOWN, "timeout", "no answer", 1.0)
    assert row[SERVER.column("server_transitions_total", "down")] == 1
    assert caplog.messages == [
        "pool p: server a is down, was never up: no answer",
        "pool p has no usable server",
    ]
    assert [json.loads(event.text)["kind"] for event in events.after(0)] == ["flip"]


def test_a_pool_that_is_gone_is_forgotten_while_it_fails_open(caplog: pytest.LogCaptureFixture) -> None:
    strategy = LeastConnections({}, random.Random(1))
    server = Server("a", parse_address("10.0.0.1:80"))
    pool = Pool("p", [server], strategy, strategy, fail_open=0.5)
    pool.set_health(server, Health.UP, "", "", 0.0)
    pool.set_health(server, Health.DOWN, "timeout", "no answer", 1.0)
    flips = Flips(
        Registry("1"), EventLog(lambda: 0.0), ThrottledLog(logging.getLogger("lbproxy.control"), clock=lambda: 0.0)
    )
    flips.watch_fail_open({"p": pool})
    flips.watch_fail_open({"p": pool})
    assert len(caplog.messages) == 1
    flips.forget("p")
    assert not flips._failing_open
