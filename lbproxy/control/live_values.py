"""The values of a server that operators change while traffic flows: how calls write them, how they are read and set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Final

from lbproxy.config.notation import SECONDS_OR_ZERO
from lbproxy.config.server_model import COUNT, WEIGHT
from lbproxy.config.units import is_off
from lbproxy.control.caller import Caller
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin

FILE: Final = "file"
"""In place of a value: what the file says."""
KEYS: Final = ("admin", "weight", "max_inflight")

Value = Admin | int


class Refused(ValueError):
    """Something is wrong with what was asked for; nothing was changed. problems: one sentence each, with its key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Change:
    """One value of a server before and after, as JSON has it: null is no limit."""

    old: object
    new: object

    def __str__(self) -> str:
        return f"{text_of(self.old)} -> {text_of(self.new)}"


def read_values(wanted: Mapping[str, object]) -> dict[str, Value | None]:
    """The values of a call, None for one that is given back to the file. Raises Refused with every problem."""
    found: dict[str, Value | None] = {}
    problems: list[str] = []
    for key, value in wanted.items():
        if key not in KEYS:
            close = get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(KEYS)}"
            problems.append(f"{key}: unknown key; {hint}")
            continue
        try:
            found[key] = None if value == FILE else _READ[key](value)
        except ValueError as error:
            problems.append(f'{key}: {error}, or "file"')
    if not wanted:
        problems.append(f"nothing to change; known keys: {', '.join(KEYS)}")
    if problems:
        raise Refused(problems)
    return found


def read_after(wanted: Mapping[str, object]) -> float | None:
    """`after` of a call: seconds, inf for `off`; None if it has none. Raises Refused."""
    if "after" not in wanted:
        return None
    value = wanted["after"]
    if wanted.get("admin") != Admin.MAINT:
        raise Refused(["after: it belongs to `admin: maint`"])
    if value is None or is_off(value):
        return inf
    try:
        after_s = SECONDS_OR_ZERO.parse(value)
    except ValueError as error:
        raise Refused([f'after: {error}; null or "off": nothing is cut']) from None
    assert isinstance(after_s, float)
    return after_s


def read_keep_sticky(wanted: Mapping[str, object]) -> bool:
    """`keep_sticky` of a call. Raises Refused."""
    if "keep_sticky" not in wanted:
        return False
    value = wanted["keep_sticky"]
    if wanted.get("admin") != Admin.DRAIN:
        raise Refused(["keep_sticky: it belongs to `admin: drain`"])
    if not isinstance(value, bool):
        raise Refused([f"keep_sticky: expected true or false, got {value!r:.60}"])
    return value


def _read_admin(value: object) -> Value:
    words = [word.value for word in Admin]
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"expected {', '.join(words)}, got {value!r:.60}")
    return Admin(value)


def _read_weight(value: object) -> Value:
    weight = WEIGHT.parse(value)
    assert isinstance(weight, int)
    return weight


def _read_limit(value: object) -> Value:
    if value is None or is_off(value):
        return 0
    try:
        limit = COUNT.parse(value)
    except ValueError as error:
        raise ValueError(f'{error}; null or "off" for no limit') from None
    assert isinstance(limit, int)
    return limit


_READ: Final[Mapping[str, Callable[[object], Value]]] = {
    "admin": _read_admin,
    "weight": _read_weight,
    "max_inflight": _read_limit,
}


def value_of(server: Server, key: str) -> Value:
    value: Value = getattr(server, key)
    return value


def set_value(
    pool: Pool,
    server: Server,
    key: str,
    value: Value,
    caller: Caller | str,
    now: float,
    *,
    keep_sticky: bool = False,
) -> None:
    if isinstance(value, Admin):
        drained = f"drained by {caller}{'; who sticks to it stays' if keep_sticky else ''}"
        words = {Admin.READY: "", Admin.DRAIN: drained, Admin.MAINT: f"in maintenance by {caller}"}
        pool.set_admin(server, value, words[value], now, keep_sticky=keep_sticky)
    else:
        set_number(pool, server, key, value, now)


def set_number(pool: Pool, server: Server, key: str, value: int, now: float) -> None:
    if key == "weight":
        pool.set_weight(server, value, now)
    else:
        pool.set_max_inflight(server, value, now)


def lets_in(key: str, old: Value, new: Value) -> bool:
    """May more requests come in by this change?"""
    if isinstance(new, Admin):
        return new is Admin.READY
    no_limit = key == "max_inflight" and new == 0
    return no_limit or (isinstance(old, int) and 0 < old < new) or (key == "weight" and new > 0 and old == 0)


def shown(key: str, value: Value) -> object:
    """A value as JSON has it."""
    if isinstance(value, Admin):
        return value.value
    return None if key == "max_inflight" and value == 0 else value


def text_of(value: object) -> str:
    return "off" if value is None else str(value)
