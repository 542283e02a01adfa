"""How the soak run counts, and what it complains about."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.soak.counting_app import read_executed
from tests.soak.groups import Outcome, pause_s
from tests.soak.gunicorn import Report, Tally, count


def report(idempotent: Tally, default: Tally) -> Report:
    return Report("gthread", "1.0", 1.0, 2, {"idempotent": idempotent, "default": default}, {})


def tally(posts: int = 20_000, **statuses: int) -> Tally:
    counts = Counter({int(name[1:]): number for name, number in statuses.items()})
    return Tally(posts, counts or Counter({200: posts}))


def test_counting() -> None:
    outcomes = [
        Outcome("once", 200),
        Outcome("twice", 200),
        Outcome("lost", 200),
        Outcome("broken", 502),
        Outcome("gone", 0, error="reset"),
    ]
    found = count(outcomes, {"once": 1, "twice": 2, "broken": 1}, {"broken": "reset"})
    assert found.posts == 5
    assert found.statuses == {200: 3, 502: 1, 0: 1}
    assert (found.twice, found.lost) == (1, 1)
    assert found.words == {"reset": 1, "(not in the log)": 1}
    assert found.unanswered == ["gone: reset"]


def test_executed_ids_of_all_workers_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("a\nb\n")
    (tmp_path / "2").write_text("b\n")
    assert read_executed(tmp_path) == {"a": 1, "b": 2}


def test_a_good_run_has_no_complaints() -> None:
    default = tally(s200=19_998, s502=2)
    default.words["reset"] = 2
    assert report(tally(), default).complaints() == []


def test_one_502_is_allowed_in_a_short_run() -> None:
    default = tally(1_000, s200=999, s502=1)
    default.words["reset"] = 1
    assert report(tally(), default).complaints() == []


def test_everything_else_is_a_complaint() -> None:
    too_many = tally(s200=19_997, s502=3)
    too_many.words["reset"] = 3
    assert len(report(tally(), too_many).complaints()) == 1
    assert len(report(tally(s200=19_999, s502=1), tally()).complaints()) == 1
    assert len(report(tally(), tally(s200=19_999, s503=1)).complaints()) == 1
    lossy, doubled, silent, mute = tally(), tally(), tally(), tally()
    lossy.lost, doubled.twice = 1, 1
    silent.unanswered.append("a: reset")
    mute.words["(not in the log)"] = 1
    for default in (lossy, doubled, silent, mute):
        assert len(report(tally(), default).complaints()) == 1


def test_an_idempotent_request_may_be_executed_twice() -> None:
    repeated = tally()
    repeated.twice = 5
    assert report(repeated, tally()).complaints() == []


def test_pauses_are_around_the_keep_alive_time_out() -> None:
    rng = random.Random(1)
    pauses = [pause_s(rng, 2.0) for _ in range(2000)]
    assert all(0.0 <= pause <= 3.2 for pause in pauses)
    assert sum(abs(pause - 2.0) < 0.05 for pause in pauses) > 700
