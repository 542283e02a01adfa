"""The configuration of each policy. Pure: numbers in, text out.

Both proxies: one listener and one pool for each lane, TCP checks every two seconds, connections kept on both sides.
What differs between policies is in `POLICIES`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Policy:
    """How a proxy balances. has_slots: a limit per server, with a queue. options: lbproxy's further keys of a pool.

    queue_s: HAProxy's `timeout queue`. leaves: HAProxy's `option abortonclose`, off by default, without which a client
    that has left stays in its queue.
    """

    program: str
    strategy: str
    has_slots: bool = False
    options: dict[str, object] = field(default_factory=dict)
    queue_s: float = 10.0
    leaves: bool = False


_FAILURES = [500, 502, 503, 504]
POLICIES: dict[str, Policy] = {
    "lbproxy_slots": Policy("lbproxy", "least_connections", has_slots=True),
    "lbproxy_least": Policy("lbproxy", "least_connections"),
    "lbproxy_ewma": Policy("lbproxy", "peak_ewma"),
    "lbproxy_ewma_slots": Policy("lbproxy", "peak_ewma", has_slots=True),
    "lbproxy_no_retry": Policy("lbproxy", "least_connections", options={"retry": {"attempts": 0}}),
    "lbproxy_no_retry_500": Policy(
        "lbproxy",
        "least_connections",
        options={"retry": {"attempts": 0}, "circuit_breaker": {"status": _FAILURES}},
    ),
    "lbproxy_slots_no_retry": Policy(
        "lbproxy", "least_connections", has_slots=True, options={"retry": {"attempts": 0}}
    ),
    "lbproxy_slots_retry": Policy(
        "lbproxy",
        "least_connections",
        has_slots=True,
        options={"retry": {"idempotent": True, "status": [500, 503]}},
    ),
    "lbproxy_retry": Policy(
        "lbproxy", "least_connections", options={"retry": {"idempotent": True, "status": [500, 503]}}
    ),
    # The queue time-out of lbproxy, so that the two differ in nothing but the order.
    "haproxy_slots": Policy("haproxy", "leastconn", has_slots=True),
    "haproxy_least": Policy("haproxy", "leastconn"),
    "haproxy_tuned": Policy("haproxy", "leastconn", has_slots=True, queue_s=0.3, leaves=True),
}

Lanes = Sequence[tuple[int, Sequence[int]]]
"""For each lane the port to listen on, and those of its servers."""


def render(policy: Policy, lanes: Lanes, slots: int, admin_port: int) -> str:
    if policy.program == "haproxy":
        return render_haproxy(policy, lanes, slots)
    return render_lbproxy(policy, lanes, slots, admin_port)


def render_lbproxy(policy: Policy, lanes: Lanes, slots: int, admin_port: int) -> str:
    """JSON, which is YAML."""
    limit = {"max_inflight": slots} if policy.has_slots else {}
    config = {
        "admin": {"bind": f"127.0.0.1:{admin_port}"},
        "access_log": {"path": "/dev/null", "format": "json"},
        "listeners": [
            {"name": f"lane{number}", "bind": f"127.0.0.1:{port}", "pool": f"lane{number}"}
            for number, (port, _) in enumerate(lanes)
        ],
        "pools": {
            f"lane{number}": {
                "strategy": policy.strategy,
                "servers": [f"127.0.0.1:{server}" for server in servers],
                "health_check": {"type": "tcp", "interval": "2s"},
                **limit,
                **policy.options,
            }
            for number, (_, servers) in enumerate(lanes)
        },
    }
    return json.dumps(config, indent=1) + "\n"


def render_haproxy(policy: Policy, lanes: Lanes, slots: int) -> str:
    limit = f" maxconn {slots}" if policy.has_slots else ""
    parts = [
        f"""\
global
    nbthread 1
    maxconn 8192
    log stdout format raw local0 info
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 3s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 75s
    timeout queue {policy.queue_s * 1000:.0f}ms
{"    option abortonclose" if policy.leaves else ""}
"""
    ]
    for number, (port, servers) in enumerate(lanes):
        lines = "\n".join(f"    server s{server} 127.0.0.1:{server} check inter 2s{limit}" for server in servers)
        parts.append(
            f"""\
frontend lane{number}
    bind 127.0.0.1:{port}
    default_backend lane{number}
backend lane{number}
    balance {policy.strategy}
{lines}
"""
        )
    return "".join(parts)
