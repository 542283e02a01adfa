"""Kinds of servers: what `kind` of a pool sets, where the pool says nothing itself.

Each value is that of the server program as it comes, and stands here with its reason, which the manual prints. What a
program is told when it is started (workers, threads, time-outs) can't be known: who changes that writes the key. So no
kind lets anything be repeated, and none limits what its program does not limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lbproxy.config.notation import Notation
from lbproxy.config.units import parse_text, shown, written


@dataclass(frozen=True, slots=True)
class Default:
    """One key below `pools.NAME`, its value as a config file has it, and why it is that."""

    key: str
    value: str | int | bool
    why: str


_ONE_AT_A_TIME: Final = "a worker answers one request at a time; with N workers behind the port write N"
_NOT_TWICE: Final = "an answer is dear, and one that is being made is better not made twice"
_UNSTREAMED: Final = (
    "an answer that is not streamed begins with its last token; waiting in the server's own queue included"
)
_SET_ASIDE: Final = "a pause within a stream: a sequence may be set aside while memory is short"
_READY: Final = "200 is the only answer that means ready"

KINDS: Final[Mapping[str, tuple[Default, ...]]] = {
    "gunicorn-sync": (
        Default("max_inflight", 1, _ONE_AT_A_TIME),
        Default("keep_alive", "off", "a sync worker closes the connection after each answer"),
        Default(
            "health_check.busy_window",
            "30s",
            "a worker that is at work answers no HTTP check; one that is silent for longer than `--timeout` (30 s) is "
            "killed by gunicorn",
        ),
    ),
    "gunicorn-gthread": (Default("keep_alive.idle_timeout", "1.5s", "below its `--keep-alive` (2 s)"),),
    "uvicorn": (Default("keep_alive.idle_timeout", "4s", "below its `--timeout-keep-alive` (5 s)"),),
    "waitress": (
        Default(
            "max_inflight", 4, "its `--threads` (4); what is more would wait there, where no other server can take it"
        ),
        Default("keep_alive.idle_timeout", "90s", "below its `--channel-timeout` (120 s)"),
    ),
    "triton": (
        Default("health_check.type", "http", "an open port does not say that models can be used"),
        Default("health_check.path", "/v2/health/ready", "says that they can"),
        Default("health_check.expect.status", "200", _READY),
        Default("timeouts.response_head", "5m", "requests wait in its scheduler to be batched"),
        Default("retry.idempotent", False, "models of sequences remember requests; for the others write `true`"),
    ),
    "vllm": (
        Default("health_check.type", "http", "an open port does not say that its engine lives"),
        Default("health_check.path", "/health", "says that it does"),
        Default("health_check.expect.status", "200", _READY),
        Default(
            "health_check.busy_window", "60s", "a long prompt holds up its event loop, and so the answer to a check"
        ),
        Default("keep_alive.idle_timeout", "4s", "below its `VLLM_HTTP_TIMEOUT_KEEP_ALIVE` (5 s)"),
        Default("timeouts.response_head", "5m", _UNSTREAMED),
        Default("timeouts.read", "2m", _SET_ASIDE),
        Default("retry.idempotent", False, _NOT_TWICE),
    ),
    "tgi": (
        Default("max_inflight", 128, "its `--max-concurrent-requests` (128); what is more gets 429 there"),
        Default("health_check.type", "http", "an open port does not say that its shards answer"),
        Default("health_check.path", "/health", "says that they do"),
        Default("health_check.expect.status", "200", _READY),
        Default("health_check.interval", "5s", "a check may take a run of the model"),
        Default("health_check.timeout", "5s", "as above"),
        Default("timeouts.response_head", "5m", _UNSTREAMED),
        Default("timeouts.read", "2m", _SET_ASIDE),
        Default("retry.idempotent", False, _NOT_TWICE),
    ),
}
_MEANT: Final = {
    "gunicorn": "gunicorn-sync, or gunicorn-gthread where it has --threads",
    "sync": "gunicorn-sync",
    "gthread": "gunicorn-gthread",
    "flask": "gunicorn-sync, gunicorn-gthread or waitress, whichever serves it",
    "django": "gunicorn-sync, gunicorn-gthread or waitress, whichever serves it",
    "fastapi": "uvicorn",
    "starlette": "uvicorn",
    "tritonserver": "triton",
    "text-generation-inference": "tgi",
}
_TCP_CHECK_KEYS: Final = ("send",)


def parse_kind(value: object) -> str:
    names = list(KINDS)
    text = value if isinstance(value, str) else ""
    if text in KINDS:
        return parse_text(text)
    word = text.lower().replace("_", "-")
    message = f"expected {', '.join(names[:-1])} or {names[-1]}, got {shown(value)}"
    if word in _MEANT:
        raise ValueError(f"{message}; did you mean {_MEANT[word]}?")
    import difflib  # 0.7 MB that only a mistake needs

    close = difflib.get_close_matches(word, names, n=1)
    raise ValueError(f"{message}; did you mean {close[0]}?" if close else message)


KIND: Final = Notation(", ".join(f"`{name}`" for name in KINDS), parse_kind, {"enum": list(KINDS)})


def with_kind(pool: object) -> object:
    """What stands in a file for a pool, with what its kind sets beneath. What is no pool with a kind stays as it is."""
    if not isinstance(pool, dict) or not isinstance(pool.get("kind"), str) or pool["kind"] not in KINDS:
        return pool
    beneath: dict[str, Any] = {}
    for default in KINDS[pool["kind"]]:
        place = beneath
        *sections, name = default.key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = default.value
    return _merged(beneath, _with_long_check(pool, beneath))


def _merged(beneath: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Own keys, and the others from beneath; sections that both have are merged in the same way."""
    made = dict(own)
    for key, value in beneath.items():
        if key not in made:
            made[key] = value
        elif isinstance(value, dict) and isinstance(made[key], dict):
            made[key] = _merged(value, made[key])
    return made


def _with_long_check(pool: dict[str, Any], beneath: dict[str, Any]) -> dict[str, Any]:
    """The short form of a check, a path, is a section too. One of another type takes nothing from beneath."""
    own, below = pool.get("health_check"), beneath.get("health_check")
    if isinstance(own, str) and own.startswith("/"):
        return {**pool, "health_check": {"type": "http", "path": own}}
    if isinstance(own, dict) and below is not None and "type" in below:
        of_tcp = own.get("type", "http") != "http" or any(key in own for key in _TCP_CHECK_KEYS)
        if of_tcp:
            del beneath["health_check"]
    return pool


def in_force(kind: str | None, pool: object) -> Iterator[tuple[str, str]]:
    """Each key that the kind of a pool (the model) sets, and its value in force, which may be the pool's own."""
    for default in KINDS.get(kind or "", ()):
        value = pool
        for name in default.key.split("."):
            value = getattr(value, name, None)
        yield default.key, _text(value)


def _text(value: object) -> str:
    """A value as a config file has it."""
    if isinstance(value, float):
        return f"{value / 60:g}m" if value >= 120 and value % 60 == 0 else f"{value:g}s"
    if isinstance(value, tuple):  # statuses
        return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in value)
    return written(value)
