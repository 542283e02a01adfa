"""What the status says of rate limits: what the config wants, and what was counted."""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.config.limits_model import RateLimit
from lbproxy.control.fleet.link import shown_url
from lbproxy.control.metrics import Registry
from lbproxy.control.status import Json
from lbproxy.telemetry.slots import LIMIT

_LIMITED, _OPEN = LIMIT.column("rate_limited_total"), LIMIT.column("rate_limit_open_total")


def limit_status(limits: Sequence[RateLimit], registry: Registry) -> list[Json]:
    """Each limit, in the order of the config. A URL is shown without its password."""
    told: list[Json] = []
    for limit in limits:
        counts = registry.cells(LIMIT, (limit.label,), 0, LIMIT.width)
        told.append(
            {
                "name": limit.label,
                "key": limit.key,
                "rate": round(limit.rate.count / limit.rate.seconds, 9),
                "burst": limit.most_at_once,
                "store": "local" if limit.store is None else shown_url(limit.store.url),
                "limited": counts[_LIMITED],
                "open": counts[_OPEN],
            }
        )
    return told
