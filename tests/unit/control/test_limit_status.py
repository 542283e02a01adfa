"""Rate limits in the status."""

from __future__ import annotations

from lbproxy.config.limits_model import RateLimit
from lbproxy.control.limit_status import limit_status
from lbproxy.control.metrics import Registry
from lbproxy.telemetry.slots import LIMIT


def test_each_limit_is_told_with_what_it_counted() -> None:
    registry = Registry("test")
    registry.add(LIMIT, ("client_ip",), [3, 0])
    registry.add(LIMIT, ("fleet",), [1, 2])
    limits = [
        RateLimit.model_validate({"key": "client_ip", "rate": "6/m", "burst": 4}),
        RateLimit.model_validate({"name": "fleet", "key": "all", "rate": "5/s", "store": "redis://u:secret@h:1/2"}),
    ]
    assert limit_status(limits, registry) == [
        {"name": "client_ip", "key": "client_ip", "rate": 0.1, "burst": 4, "store": "local", "limited": 3, "open": 0},
        {"name": "fleet", "key": "all", "rate": 5.0, "burst": 5, "store": "redis://h:1/2", "limited": 1, "open": 2},
    ]
    assert limit_status((), registry) == []
