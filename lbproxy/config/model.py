"""The whole configuration as frozen models: attribute names are the keys, durations are float seconds, sizes are int
bytes, `off` is None. The description of each field is its paragraph in docs/configuration.md.

A model checks single values. What concerns two or more keys is in checks.py, where the complaint can name a position.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal

from lbproxy.address import Address
from lbproxy.config.http_rules import (
    HeaderEdits,
    HeaderRules,
    Match,
    PoolTimeoutsOverride,
    Redirect,
    Respond,
    RetryOverride,
    Rewrite,
    Route,
)
from lbproxy.config.limits_model import ApiKeys, LimitStore, RateLimit
from lbproxy.config.listener_model import Listener, ListenerLimits, ListenerTimeouts, ListenerTls
from lbproxy.config.notation import (
    BIND,
    BYTES,
    FILE,
    FLAG,
    HOST_NAME,
    NAME,
    OFF_SCHEMA,
    OR_OFF,
    POOL_NAME,
    PROXY,
    SECONDS_OR_ZERO,
    SECRET,
    Notation,
    Section,
    Shorthand,
    integer,
    setting,
)
from lbproxy.config.pool_model import (
    CircuitBreaker,
    Dns,
    Expect,
    HealthCheck,
    KeepAlive,
    Pool,
    PoolLimits,
    PoolTimeouts,
    PoolTls,
    Queue,
    Retry,
    RetryBackoff,
    RetryBudget,
    Sticky,
)
from lbproxy.config.server_model import ServerSpec, StrategySpec
from lbproxy.config.tests_model import Expectation, Trial, TrialRequest, TrialServer
from lbproxy.config.units import is_off


def _parse_workers(value: object) -> int:
    """1, N, or `auto`, which is 0 here: the number of usable cores is known only where processes are started."""
    return 0 if value == "auto" else WORKER_COUNT.parse(value)  # type: ignore[return-value]


WORKER_COUNT = integer(1, 1024)
WORKERS = Notation("whole number or `auto`", _parse_workers, {"anyOf": [{"const": "auto"}, dict(WORKER_COUNT.schema)]})


class AdminToken(Section):
    token: Annotated[str | None, SECRET.or_off()] = setting(
        ..., "The token: visible ASCII without spaces. `off`: nobody has this one."
    )
    scope: Literal["read", "write"] = setting("write", "`read`: calls that change nothing. `write`: all.")


def expand_token(value: object) -> object:
    return value if isinstance(value, (dict, AdminToken)) else {"token": value}


AnyToken = Annotated[AdminToken, Shorthand("secret, `off`, or a mapping", expand_token, (OFF_SCHEMA, SECRET.schema))]


class Admin(Section):
    bind: Annotated[Address | None, BIND.or_off()] = setting(
        "127.0.0.1:8404", "Where metrics, health and the API are served. `off`: nowhere. Keep it off public addresses."
    )
    token: Annotated[str | None, SECRET.or_off()] = setting(
        "off",
        "Bearer token, visible ASCII without spaces, that every changing call needs, and every call from elsewhere "
        "than loopback that is not a probe or /metrics. "
        "Without a token changing calls are allowed from loopback and the unix socket only.",
    )
    tokens: Mapping[Annotated[str, NAME], AnyToken] = setting(
        {},
        "More bearer tokens, by the name of who has each, which the log says with every change. A token alone has the "
        "scope `write`.",
    )
    hosts: tuple[Annotated[str, HOST_NAME], ...] = setting(
        (),
        "Names under which the admin address may be called without a token, besides `localhost` and IP addresses. A "
        "name that others control would let their pages in.",
    )
    recent: Annotated[int, integer(0, 1_000_000)] = setting(
        10_000,
        "How many of the last requests `lbproxy explain` can find by their id: their lines of the access log, together "
        "at most 16 MiB. 0: none. Needs the access log, in its format `json`.",
    )
    ready: Literal["any", "all"] = setting(
        "any",
        "/readyz says 200 while `any` pool has a usable server that has passed a check, or only while `all` pools have "
        "one.",
    )


def expand_admin(value: object) -> object:
    if is_off(value) or (isinstance(value, (str, int, float)) and not isinstance(value, bool)):
        return {"bind": value}
    return value


class AccessLog(Section):
    path: Annotated[str, FILE] = setting("stdout", "`stdout`, `stderr`, or a file, which SIGUSR1 opens again.")
    format: Literal["json", "common", "combined"] = setting(
        "json", "`json`: one object a line with everything known. `common`, `combined`: the formats of web servers."
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least important messages that are logged."
    )
    format: Literal["text", "json"] = setting("text", "Lines for people, or one JSON object a line.")


class Shutdown(Section):
    delay: Annotated[float, SECONDS_OR_ZERO] = setting(
        "0s", "Time between failing /readyz and closing the listeners, so that other balancers notice."
    )
    grace: Annotated[float, SECONDS_OR_ZERO] = setting(
        "25s", "Time from the signal, `delay` included, after which what is unfinished is cut."
    )
    after_upgrade: Annotated[float, SECONDS_OR_ZERO] = setting(
        "1h",
        "Time after an upgrade in which the process before it may finish what it has, WebSockets and streams included; "
        "then the rest is cut.",
    )


class Limits(Section):
    connections: Annotated[int | None, integer(1, 10_000_000).or_unset()] = setting(
        None,
        "Client connections at once; who comes then is accepted when an idle one has made way. Default: 10000, or what "
        "the limit on open files allows if that is less.",
    )
    buffered_bytes: Annotated[int, BYTES] = setting(
        "256MiB",
        "Memory for data on its way, over all connections; heads of requests above 4 KiB count twice, as they came and "
        "as they go on. From 75 % of it on copies of request bodies that are kept for a retry "
        "are given up, the largest first; from 85 % on requests that wait are not read further; from 95 % "
        "on no connection is accepted, new requests get 503 and /readyz says so.",
    )


class Config(Section):
    """Everything that lbproxy can be told."""

    workers: Annotated[int, WORKERS] = setting(
        1,
        "Processes that serve, each on one core; `auto`: as many as there are usable cores. Above 1 there are a "
        "controller and a supervisor besides; the latter is the process that is started ([more](workers.md)).",
    )
    watch: Annotated[bool, FLAG] = setting(
        False, "Read this file again when its content changes, as SIGHUP and `lbproxy reload` do."
    )
    state_file: Annotated[str | None, FILE.or_off()] = setting(
        "off",
        "A file that keeps over restarts what was changed by command (states, weights, limits, servers added and "
        "removed), and which servers are down or ejected. Relative to this file's folder; "
        "[more](reload.md#over-a-restart).",
    )
    admin: Annotated[Admin, Shorthand("`off`, an address, or a mapping", expand_admin, (OFF_SCHEMA, BIND.schema))] = (
        setting(Admin(), "The address for operators and monitoring. `off`: none; an address: `bind` alone.")
    )
    access_log: Annotated[AccessLog | None, OR_OFF] = setting(AccessLog(), "One line a request (TCP: a connection).")
    log: Log = setting(Log(), "lbproxy's own messages, on stderr.")
    shutdown: Shutdown = setting(Shutdown(), "What SIGTERM does.")
    limits: Limits = setting(Limits(), "Bounds of the whole process.")
    trusted_proxies: tuple[Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"], PROXY], ...] = (
        setting(
            (),
            "Networks of proxies in front of lbproxy, whose X-Forwarded-*, Forwarded and X-Request-ID headers are "
            "believed. From everybody else they are replaced. `unix`: whoever connects over a unix socket, which the "
            "`mode_bits` of its file decide.",
        )
    )
    api_keys: Annotated[ApiKeys | None, OR_OFF] = setting(
        "off", "Keys by which clients of HTTP are known, and without which they may not ask ([more](limits.md))."
    )
    rate_limits: tuple[RateLimit, ...] = setting(
        (), "How many requests of HTTP are let through ([more](limits.md)). A request must pass all that match it."
    )
    listeners: tuple[Listener, ...] = setting(..., "Where clients connect, at least one.")
    pools: Mapping[Annotated[str, POOL_NAME], Pool] = setting(
        {}, "Groups of interchangeable servers, by name: 1 to 64 letters, digits, `.`, `_` and `-`."
    )
    tests: tuple[Trial, ...] = setting(
        (), "Requests, and where they must go. `lbproxy test` tries them without a socket; a run does not look at them."
    )


__all__ = [
    "AccessLog",
    "Admin",
    "AdminToken",
    "ApiKeys",
    "CircuitBreaker",
    "Config",
    "Dns",
    "Expect",
    "Expectation",
    "HeaderEdits",
    "HeaderRules",
    "HealthCheck",
    "KeepAlive",
    "LimitStore",
    "Limits",
    "Listener",
    "ListenerLimits",
    "ListenerTimeouts",
    "ListenerTls",
    "Log",
    "Match",
    "Pool",
    "PoolLimits",
    "PoolTimeouts",
    "PoolTimeoutsOverride",
    "PoolTls",
    "Queue",
    "RateLimit",
    "Redirect",
    "Respond",
    "Retry",
    "RetryBackoff",
    "RetryBudget",
    "RetryOverride",
    "Rewrite",
    "Route",
    "ServerSpec",
    "Shutdown",
    "Sticky",
    "StrategySpec",
    "Trial",
    "TrialRequest",
    "TrialServer",
]
