"""Listeners that are wired as the daemon wires them, without sockets."""

from __future__ import annotations

import random

from lbproxy.config.loader import load_text
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.process.wiring import Wiring
from lbproxy.telemetry.slots import Slots


def wiring_of(text: str, base_dir: str = ".") -> tuple[Wiring, list[ListenerRuntime]]:
    """A config with its pools and all its listeners; nobody hears of failures."""
    config = load_text(text, "test.yaml", {}).config
    wiring = Wiring(
        config,
        Slots(),
        Registry("test"),
        rng=random.Random(1),
        dial_failed=lambda pool, server, fault: None,
        strategy_failed=lambda pool, error: None,
        base_dir=base_dir,
    )
    wiring.build_pools()
    return wiring, [wiring.build_listener(listener) for listener in config.listeners]


def listener_of(text: str) -> ListenerRuntime:
    """The first listener of a config."""
    return wiring_of(text)[1][0]
