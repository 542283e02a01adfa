"""What callgrind wrote, as cost per request and function. Pure.

The format: https://valgrind.org/docs/manual/cl-format.html. Names stand in full once, with a number in brackets, and
as that number afterwards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_TRIGGER: Final = "desc: Trigger: Client Request: "
_NAME: Final = re.compile(r"(\w+)=\((\d+)\)(?: (.+))?")
# What gcc and callgrind append to a function of which there are several copies, and to one that calls itself.
_COPY: Final = re.compile(r"(\.(cold|part|isra|constprop|lto_priv)(\.\d+)*|'\d+)+$")
_KINDS: Final = {"ob": "ob", "cob": "ob", "fn": "fn", "cfn": "fn"}
_OWN: Final = "lbproxy"
_COMPILED: Final = ("CPyDef_", "CPyPy_")


@dataclass(frozen=True, slots=True)
class Profile:
    """Instructions of one part of a run.

    total: all of them. own: those inside lbproxy's compiled modules. functions: by name, without what they call.
    with_python: for lbproxy's own, what they and the interpreter's functions that they call need together, so a method
    of a built-in type shows up under the function that uses it. Where the interpreter calls back into lbproxy that
    counts for both; so these are for finding what rose, and not for sums.
    """

    total: int
    own: int
    functions: dict[str, int] = field(default_factory=dict)
    with_python: dict[str, int] = field(default_factory=dict)


def part_of(text: str) -> str:
    """The name under which the trace had this part written; "" for what the end of the program left."""
    found = next((line for line in text.splitlines() if line.startswith(_TRIGGER)), _TRIGGER)
    return found.removeprefix(_TRIGGER).strip()


def parse(text: str) -> Profile:
    """Read one part. Raises ValueError if it counts anything but instructions."""
    names: dict[tuple[str, str], str] = {}
    obj = fn = callee_obj = callee = ""
    is_call = False
    own_total = 0
    functions: defaultdict[str, int] = defaultdict(int)
    with_python: defaultdict[str, int] = defaultdict(int)
    for line in text.splitlines():
        if line.startswith("events:") and line.split() != ["events:", "Ir"]:
            raise ValueError(f"callgrind counted {line.partition(':')[2].strip()} instead of Ir alone")
        if found := _NAME.fullmatch(line):
            key, number, name = found.groups()
            kind = _KINDS.get(key)
            if kind is None:
                continue
            if name is not None:
                names[kind, number] = name
            known = names[kind, number]
            if key == "ob":
                obj = known
            elif key == "fn":
                fn, callee_obj = known, ""
            elif key == "cob":
                callee_obj = known
            else:
                callee = known
        elif line.startswith("calls="):
            is_call = True
        elif line[:1] in "0123456789+-*" and line:
            cost = int(line.split()[1])
            label = label_of(fn, obj)
            if is_call:
                # Without an object of its own the callee is in the caller's.
                if _is_function(fn, obj) and not _is_function(callee, callee_obj or obj):
                    with_python[label] += cost
                is_call, callee_obj = False, ""
                continue
            functions[label] += cost
            if is_own(obj):
                own_total += cost
            if _is_function(fn, obj):
                with_python[label] += cost
    return Profile(sum(functions.values()), own_total, dict(functions), dict(with_python))


def is_own(obj: str) -> bool:
    """Is this file one of lbproxy's compiled modules?"""
    return obj.rpartition("/")[2].startswith(_OWN) or "/site-packages/lbproxy/" in obj


def _is_function(fn: str, obj: str) -> bool:
    """Is this compiled from a function of lbproxy, and no helper of mypyc's, which does what the interpreter would?"""
    return fn.startswith(_COMPILED) and is_own(obj)


def label_of(fn: str, obj: str) -> str:
    """A function for people: `exchange.Exchange._finish`, `PyDict_GetItem [python]`. Copies have one label.

    mypyc makes CPyDef_MODULE___CLASS___NAME of a function, and CPyPy_... of the entry for interpreted callers.
    """
    fn = _COPY.sub("", fn)
    if fn.startswith("0x"):
        fn = "(without a name)"
    if _is_function(fn, obj):
        kind, _, rest = fn.partition("_")
        return _dotted(rest) + (" (called by the interpreter)" if kind == "CPyPy" else "")
    return f"{fn} [{_short(obj)}]"


def _dotted(name: str) -> str:
    parts: list[str] = []
    while True:
        part, separator, rest = name.partition("___")
        if not separator:
            return ".".join([*parts, name])
        parts.append(part)
        name = rest


def _short(obj: str) -> str:
    base = obj.rpartition("/")[2]
    if re.match(r"(lib)?python\d", base):
        return "python"
    return base.partition(".")[0] or "?"


def per_request(profile: Profile, requests: int) -> Profile:
    """The same divided by the number of requests, rounded; functions that round to nothing go."""

    def each(costs: Iterable[tuple[str, int]]) -> dict[str, int]:
        return {name: rounded for name, cost in costs if (rounded := round(cost / requests))}

    return Profile(
        round(profile.total / requests),
        round(profile.own / requests),
        each(profile.functions.items()),
        each(profile.with_python.items()),
    )
