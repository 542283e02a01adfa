"""A server that closes connections after some answers and does not say so: learned from two, then tried again."""

from __future__ import annotations

import pytest

from lbproxy.domain.idle_timeout import EARLY_S, EVIDENCE_S, MIN_AGE_S
from lbproxy.domain.reuse import FIRST_TRIAL_S, MAX_TRIAL_S, NO_LIMIT, ReuseLimit

SOON_S = 0.005


def learned(*ends: tuple[int, float, float], age_s: float = SOON_S) -> ReuseLimit:
    """Connections as (answers, opened at, ended at)."""
    limit = ReuseLimit()
    for answers, opened_at, ended_at in ends:
        limit.explains(answers, age_s, opened_at, ended_at)
    return limit


def test_nothing_is_known_at_first() -> None:
    assert ReuseLimit().limit == NO_LIMIT and not ReuseLimit().is_trial_due(1e9)


def test_one_end_teaches_nothing() -> None:
    assert learned((1, 0.0, 1.0)).limit == NO_LIMIT


@pytest.mark.parametrize("answers", [1, 2, 1000])
@pytest.mark.parametrize("age_s", [0.0, SOON_S, 0.1, EARLY_S - 0.001])
def test_two_connections_that_end_after_the_same_number_of_answers_teach_it(answers: int, age_s: float) -> None:
    assert learned((answers, 0.0, 1.0), (answers, 1.1, 1.2), age_s=age_s).limit == answers


def test_a_late_end_is_a_matter_of_patience() -> None:
    assert learned((1, 0.0, 1.0), (1, 1.1, 2.0), age_s=EARLY_S).limit == NO_LIMIT
    assert not ReuseLimit().explains(1, EARLY_S, 0.0, 1.0)


def test_a_restart_ends_what_was_open_and_is_one_event() -> None:
    assert learned(*((1, 0.0, 1.0 + n / 100) for n in range(50))).limit == NO_LIMIT


def test_different_numbers_teach_nothing() -> None:
    assert learned((100, 0.0, 1.0), (57, 1.1, 2.0), (83, 2.1, 3.0)).limit == NO_LIMIT


def test_another_connection_with_more_answers_is_evidence_that_it_was_the_time() -> None:
    limit = ReuseLimit()
    limit.seen(7, 0.5)
    assert not limit.explains(1, 0.2, 0.0, 1.0) and not limit.explains(1, 0.2, 1.1, 2.0)
    assert limit.limit == NO_LIMIT
    late = 1.0 + EVIDENCE_S
    assert limit.explains(1, 0.2, late, late + 1.0) and limit.explains(1, 0.2, late + 1.1, late + 2.0)
    assert limit.limit == 1


def test_so_is_one_that_has_ended() -> None:
    assert learned((3, 0.0, 1.0), (1, 1.1, 2.0), (1, 2.1, 3.0), age_s=0.2).limit == NO_LIMIT


def test_a_server_that_closes_after_few_answers_now_and_then() -> None:
    ends = ((3, 0.0, 1.0), (1, 1.1, 2.0), (2, 2.1, 3.0))
    assert learned(*ends).limit == 1
    assert learned(*ends, age_s=MIN_AGE_S).limit == NO_LIMIT
    assert learned((3, 0.0, 1.0), (1, 1.1, 2.0), (9, 2.1, 3.0), (2, 3.1, 4.0)).limit == NO_LIMIT


def test_it_can_become_less_but_not_more() -> None:
    limit = learned((5, 0.0, 1.0), (5, 1.1, 2.0))
    for number in range(2):
        limit.explains(2, SOON_S, 2.1 + number, 3.0 + number)
    assert limit.limit == 2
    for number in range(2):
        limit.explains(4, SOON_S, 4.1 + number, 5.0 + number)
    assert limit.limit == 2


def test_it_is_tried_again_now_and_then() -> None:
    limit = learned((1, 0.0, 1.0), (1, 1.1, 2.0))
    assert not limit.is_trial_due(1.9 + FIRST_TRIAL_S)
    now = 2.0 + FIRST_TRIAL_S
    assert limit.is_trial_due(now)
    pauses = []
    for _ in range(8):
        limit.confirmed(now)
        assert limit.limit == 1 and not limit.is_trial_due(now)
        before = now
        while not limit.is_trial_due(now):
            now += 1.0
        pauses.append(now - before)
    assert pauses == sorted(pauses) and pauses[0] == 2 * FIRST_TRIAL_S and pauses[-1] == MAX_TRIAL_S


def test_a_trial_that_passes_lifts_it_and_two_more_ends_bring_it_back() -> None:
    limit = learned((1, 0.0, 1.0), (1, 1.1, 2.0))
    limit.lifted(13.0)
    assert limit.limit == NO_LIMIT and not limit.is_trial_due(1e9)
    limit.explains(1, SOON_S, 14.0, 14.1)
    assert limit.limit == NO_LIMIT
    limit.explains(1, SOON_S, 14.2, 14.3)
    assert limit.limit == 1
    assert not limit.is_trial_due(14.2 + 2 * FIRST_TRIAL_S) and limit.is_trial_due(14.3 + 2 * FIRST_TRIAL_S)
