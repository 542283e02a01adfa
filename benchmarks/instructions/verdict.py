"""What was counted against what was recorded. Pure.

In the environment of the record 5 % more are too many. Another version of Python, of the compiler or of the C library
moves the sum without a change in the sources: Debian's Python 3.11 needs 11 % less than a plain build, Python 3.12
up to 18 % more. So there is more room elsewhere, also for what lies in lbproxy's own modules, which is a tenth to a
quarter of the whole. On another kind of processor nothing can be compared.

Fewer are no failure: whoever made it cheaper is asked to record that, so that what comes next is compared with it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.instructions.counting import Environment
from benchmarks.instructions.profile import Profile

TOLERANCE: Final = 0.05
TOLERANCE_ELSEWHERE: Final = 0.3
AGAIN: Final = "make instructions"
_NAMED: Final = 6
_WORTH_NAMING: Final = 0.002  # of the whole: below that a function is noise
_RECORDED_FROM: Final = 0.001


@dataclass(frozen=True, slots=True)
class Record:
    """Instructions per request by kind, and where they were counted."""

    environment: Environment
    kinds: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class Rise:
    """A function and its instructions per request, before and now."""

    name: str
    before: int
    now: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One kind. what: whose instructions these are. callers and functions: those that rose most, the worst first."""

    kind: str
    what: str
    before: int
    now: int
    tolerance: float
    callers: tuple[Rise, ...] = ()
    functions: tuple[Rise, ...] = ()

    @property
    def change(self) -> float:
        return self.now / self.before - 1

    @property
    def is_rise(self) -> bool:
        return self.now > self.before * (1 + self.tolerance)

    @property
    def is_fall(self) -> bool:
        return self.now < self.before * (1 - self.tolerance)


def judge(record: Record, counted: Mapping[str, Profile], environment: Environment) -> list[Verdict]:
    """Verdicts on each kind that is in both, with other versions one on lbproxy's own modules too.

    Empty if the record is of another kind of processor.
    """
    if environment.machine != record.environment.machine:
        return []
    is_same = environment == record.environment
    tolerance = TOLERANCE if is_same else TOLERANCE_ELSEWHERE
    found = []
    for kind in [kind for kind in record.kinds if kind in counted]:
        before, now = record.kinds[kind], counted[kind]
        callers = rises(before.with_python, now.with_python, before.total)
        functions = rises(before.functions, now.functions, before.total)
        found.append(Verdict(kind, "instructions", before.total, now.total, tolerance, callers, functions))
        if not is_same:
            own = "instructions in lbproxy's own modules"
            found.append(Verdict(kind, own, before.own, now.own, tolerance, callers, functions))
    return found


def rises(before: Mapping[str, int], now: Mapping[str, int], whole: int) -> tuple[Rise, ...]:
    """The functions that rose most, by instructions. One that was not recorded counts as new."""
    found = [Rise(name, before.get(name, 0), cost) for name, cost in now.items()]
    found = [rise for rise in found if rise.now - rise.before >= max(1, _WORTH_NAMING * whole)]
    return tuple(sorted(found, key=lambda rise: rise.before - rise.now)[:_NAMED])


def render(verdicts: list[Verdict], record: Record, environment: Environment) -> str:
    """All of it in words. What rose too much is named; the last line says what to do."""
    lines = []
    if environment != record.environment:
        lines.append(f"recorded with other versions: {differences(record.environment, environment)}")
    if not verdicts:
        lines.append(f"nothing to compare with on {environment.machine}; `{AGAIN}` records it")
    for verdict in verdicts:
        lines.append(
            f"{verdict.kind}: {verdict.now:,} {verdict.what} per request, {verdict.before:,} recorded "
            f"({verdict.change:+.1%}, {verdict.tolerance:.0%} allowed)"
        )
        if verdict.is_rise:
            lines += _named("rose most, with the Python that they call", verdict.callers)
            lines += _named("rose most, themselves", verdict.functions)
    if any(verdict.is_rise for verdict in verdicts):
        lines.append(f"TOO MANY: make it cheaper, or, if it is worth that, say so in the commit and run `{AGAIN}`")
    elif any(verdict.is_fall for verdict in verdicts):
        lines.append(f"cheaper than recorded: run `{AGAIN}`, or what comes next may spend it unseen")
    return "\n".join(lines)


def differences(before: Environment, now: Environment) -> str:
    """`python 3.11.7 (now 3.12.1)`, ..."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    return ", ".join(f"{name} {old[name]} (now {new[name]})" for name in old if old[name] != new[name])


def _named(title: str, found: tuple[Rise, ...]) -> list[str]:
    if not found:
        return []
    return [f"  {title}:", *(f"    {r.now - r.before:+8,}  {r.name}: {r.before:,} to {r.now:,}" for r in found)]


def to_json(record: Record) -> str:
    """One function a line, in the order of names, so that two records can be compared by eye."""
    kinds = {}
    for kind, found in record.kinds.items():
        least = _RECORDED_FROM * found.total

        def kept(costs: Mapping[str, int], least: float = least) -> dict[str, int]:
            return {name: cost for name, cost in sorted(costs.items()) if cost >= least}

        kinds[kind] = {
            "total": found.total,
            "own": found.own,
            "with_python": kept(found.with_python),
            "functions": kept(found.functions),
        }
    document = {"environment": dataclasses.asdict(record.environment), "kinds": kinds}
    return json.dumps(document, indent=1) + "\n"


def from_json(text: str) -> Record:
    document = json.loads(text)
    kinds = {kind: Profile(**found) for kind, found in document["kinds"].items()}
    return Record(Environment(**document["environment"]), kinds)
