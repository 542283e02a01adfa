"""TLS that all workers have in common."""

from __future__ import annotations

import random
from pathlib import Path

from lbproxy import __version__
from lbproxy.config.model import Config
from lbproxy.control.metrics import Registry
from lbproxy.process.building import Builder, Rows, TlsParts
from lbproxy.telemetry.slots import Slots


def listener_tls(config: Config, config_path: str) -> TlsParts:
    """Made before the workers are forked, so that all of them have the same keys of session tickets: Python's ssl can't
    be given any. Raises Unusable."""
    base_dir = str(Path(config_path).parent) if config_path else "."
    builder = Builder(
        config,
        Rows(Slots(), Registry(__version__)),
        rng=random.Random(),
        dial_failed=lambda pool, server, fault: None,
        strategy_failed=lambda pool, error: None,
        base_dir=base_dir,
    )
    for listener in config.listeners:
        builder.listener_tls(listener)
    return builder.tls
