"""When a count is too high, and what is said then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.instructions.__main__ import RECORDED
from benchmarks.instructions.counting import Environment
from benchmarks.instructions.kinds import KINDS
from benchmarks.instructions.profile import Profile
from benchmarks.instructions.verdict import Record, Rise, from_json, judge, render, rises, to_json

HERE = Environment("3.11.7", "GCC 12.2.0, plain", "GCC 12.2.0", "x86_64", "glibc 2.36", "0.9.0")
BEFORE = Profile(
    10_000, 2_000, {"memo.find": 1_500, "bytes_replace [python]": 500, "other [python]": 8_000}, {"memo.find": 2_000}
)
RECORD = Record(HERE, {"real": BEFORE, "repeated": replace(BEFORE, total=3_000)})


def profile(total: int, *, own: int = 2_000, replaced: int = 500, found: int = 2_000) -> Profile:
    functions = {"memo.find": 1_500, "bytes_replace [python]": replaced, "other [python]": 8_000}
    return Profile(total, own, functions, {"memo.find": found})


@pytest.mark.parametrize(
    ("total", "is_rise", "is_fall"),
    [
        (10_000, False, False),
        (10_500, False, False),
        (10_501, True, False),
        (20_000, True, False),
        (9_500, False, False),
        (9_499, False, True),
    ],
)
def test_five_percent(total: int, is_rise: bool, is_fall: bool) -> None:
    (verdict,) = judge(RECORD, {"real": profile(total)}, HERE)
    assert (verdict.is_rise, verdict.is_fall) == (is_rise, is_fall)


def test_a_rise_names_who_needs_it_and_where_it_is_spent() -> None:
    counted = {"real": profile(10_800, replaced=1_300, found=2_800), "repeated": replace(BEFORE, total=3_000)}
    verdicts = judge(RECORD, counted, HERE)
    assert [verdict.is_rise for verdict in verdicts] == [True, False]
    assert verdicts[0].callers == (Rise("memo.find", 2_000, 2_800),)
    assert verdicts[0].functions == (Rise("bytes_replace [python]", 500, 1_300),)
    assert render(verdicts, RECORD, HERE).splitlines() == [
        "real: 10,800 instructions per request, 10,000 recorded (+8.0%, 5% allowed)",
        "  rose most, with the Python that they call:",
        "        +800  memo.find: 2,000 to 2,800",
        "  rose most, themselves:",
        "        +800  bytes_replace [python]: 500 to 1,300",
        "repeated: 3,000 instructions per request, 3,000 recorded (+0.0%, 5% allowed)",
        "TOO MANY: make it cheaper, or, if it is worth that, say so in the commit and run `make instructions`",
    ]


def test_the_worst_come_first_and_noise_is_not_named() -> None:
    before = {f"f{number}": 100 for number in range(10)}
    now = {"f1": 150, "f2": 300, "f3": 101, "new": 200, **{f"g{number}": 20 + number for number in range(9)}}
    found = rises(before, now, 10_000)
    assert [rise.name for rise in found] == ["f2", "new", "f1", "g8", "g7", "g6"]
    assert found[1] == Rise("new", 0, 200)
    assert rises(before, {**before, "f3": 119}, 10_000) == ()


def test_a_fall_asks_to_be_recorded_and_passes() -> None:
    verdicts = judge(RECORD, {"real": profile(5_000)}, HERE)
    text = render(verdicts, RECORD, HERE)
    assert not any(verdict.is_rise for verdict in verdicts)
    assert text.splitlines()[-1].startswith("cheaper than recorded: run `make instructions`")
    assert "cheaper" not in render(judge(RECORD, {"real": profile(9_600)}, HERE), RECORD, HERE)


def test_other_versions_have_more_room_and_their_own_modules_are_watched() -> None:
    there = replace(HERE, python="3.12.1")

    def rose(total: int, own: int) -> list[bool]:
        return [verdict.is_rise for verdict in judge(RECORD, {"real": profile(total, own=own)}, there)]

    assert rose(12_900, 2_500) == [False, False]
    assert rose(13_100, 2_500) == [True, False]
    assert rose(12_900, 2_700) == [False, True]
    text = render(judge(RECORD, {"real": profile(10_000)}, there), RECORD, there)
    assert text.startswith("recorded with other versions: python 3.11.7 (now 3.12.1)\n")


def test_another_processor_has_nothing_to_compare_with() -> None:
    there = replace(HERE, machine="aarch64")
    assert judge(RECORD, {"real": profile(99_000)}, there) == []
    assert "nothing to compare with on aarch64; `make instructions` records it" in render([], RECORD, there)


def test_a_record_is_kept_without_what_costs_nothing() -> None:
    profiles = {"real": replace(BEFORE, functions={"b": 9, "a": 10, "c": 9_000}, with_python={"d": 9})}
    kept = from_json(to_json(Record(HERE, profiles)))
    assert kept.environment == HERE
    assert kept.kinds == {"real": Profile(10_000, 2_000, {"a": 10, "c": 9_000}, {})}


def test_what_is_recorded_has_every_kind_and_its_functions() -> None:
    record = from_json(RECORDED.read_text())
    assert tuple(record.kinds) == KINDS
    for kind, found in record.kinds.items():
        assert 0.8 * found.total < sum(found.functions.values()) <= found.total, kind
        assert 0 < found.own < found.total, kind
        assert found.with_python, kind
