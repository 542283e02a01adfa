from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.breaker import WORDS, BreakerPolicy, CircuitBreaker
from lbproxy.domain.states import Breaker

POLICY = BreakerPolicy()


def play(script: str, policy: BreakerPolicy = POLICY) -> list[str]:
    """A transcript. `+`, `-`: an answer of the present generation, a tenth of a second after the last; `o`: one of the
    generation before; `(`: a probe starts; `)`, `x`, `n`: it ends well, badly, without verdict; `12>`: 12 s pass.

    What the breaker proposes is done. Returns what happened, with the times.
    """
    breaker = CircuitBreaker(policy)
    now, digits, said = 0.0, "", []
    for step in script.replace(" ", ""):
        reason = None
        before = breaker.state
        if step.isdigit():
            digits += step
            continue
        if step == ">":
            now += int(digits)
            digits = ""
            breaker.tick(now)
        elif step == "(":
            said.append(f"{now:.1f} probe {'allowed' if breaker.may_probe(now) else 'refused'}")
            if breaker.may_probe(now):
                breaker.probe_started()
        elif step in ")xn":
            reason = breaker.probe_finished({")": True, "x": False, "n": None}[step], now)
        else:
            now += 0.1
            reason = breaker.observe(step == "+", breaker.generation - (step == "o"), now)
        if reason is not None:
            breaker.eject(reason, now)
            said.append(f"{now:.1f} {reason}: {breaker.what}; open for {breaker.open_until - now:.0f} s")
        elif breaker.state is not before:
            said.append(f"{now:.1f} {breaker.state}")
    return said


def test_golden_consecutive_failures_and_a_good_probe() -> None:
    assert play("++-+---- - 9> ( 1> ( ) ++ ----") == [
        "0.9 consecutive_failures: 5 consecutive failures; open for 10 s",
        "9.9 probe refused",
        "10.9 probing",
        "10.9 probe allowed",
        "10.9 closed",
    ]


def test_golden_open_time_doubles_up_to_the_maximum() -> None:
    policy = BreakerPolicy(open_s=10.0, max_open_s=60.0)
    assert play("----- 10> (x 20> (x 40> (x 60> (x", policy) == [
        "0.5 consecutive_failures: 5 consecutive failures; open for 10 s",
        "10.5 probing",
        "10.5 probe allowed",
        "10.5 probe_failed: the probe failed; open for 20 s",
        "30.5 probing",
        "30.5 probe allowed",
        "30.5 probe_failed: the probe failed; open for 40 s",
        "70.5 probing",
        "70.5 probe allowed",
        "70.5 probe_failed: the probe failed; open for 60 s",
        "130.5 probing",
        "130.5 probe allowed",
        "130.5 probe_failed: the probe failed; open for 60 s",
    ]


def test_golden_open_time_decays_while_closed() -> None:
    """A relapse soon after is punished harder; one after 2 x 10 s closed is a first ejection again."""
    soon = play("----- 10> (x 20> () ----- ")
    later = play("----- 10> (x 20> () 20> -----")
    assert soon[-1] == "31.0 consecutive_failures: 5 consecutive failures; open for 40 s"
    assert later[-1] == "51.0 consecutive_failures: 5 consecutive failures; open for 10 s"


def test_golden_error_rate() -> None:
    script = "+-" * 9 + "+-"
    assert play(script) == [
        "2.0 error_rate: 10 of 20 requests failed within 10 s, the last ones by failures; open for 10 s"
    ]
    assert play(script[:-2]) == []


def test_golden_a_probe_without_verdict_gives_its_permit_back() -> None:
    assert play("----- 10> ( ( n ( )") == [
        "0.5 consecutive_failures: 5 consecutive failures; open for 10 s",
        "10.5 probing",
        "10.5 probe allowed",
        "10.5 probe refused",
        "10.5 probe allowed",
        "10.5 closed",
    ]


def test_golden_answers_from_before_the_flip_do_not_count() -> None:
    assert play("----- +++++ 10> ooooo o") == [
        "0.5 consecutive_failures: 5 consecutive failures; open for 10 s",
        "11.0 probing",
    ]


def test_a_success_breaks_the_row() -> None:
    assert play("----+----+----") == []


def test_failures_older_than_the_window_are_forgotten() -> None:
    policy = BreakerPolicy(failures=1000)
    breaker = CircuitBreaker(policy)
    for i in range(19):
        assert breaker.observe(False, 0, i / 10) is None
    assert breaker.observe(False, 0, 12.5) is None
    assert breaker.counts()[1] < 20
    assert CircuitBreaker(policy).counts() == (0, 0)


def test_failures_within_the_window_are_kept() -> None:
    breaker = CircuitBreaker(BreakerPolicy(failures=1000))
    said = [breaker.observe(False, 0, i * 0.45) for i in range(20)]  # 8.55 s
    assert said == [None] * 19 + ["error_rate"]


def test_several_probes_at_once() -> None:
    breaker = CircuitBreaker(BreakerPolicy(probes=2))
    breaker.eject("error_rate", 0.0)
    assert breaker.tick(10.0)
    for _ in range(2):
        assert breaker.may_probe(10.0)
        breaker.probe_started()
    assert not breaker.may_probe(10.0)
    assert breaker.probe_finished(True, 10.1) is None
    assert breaker.state is Breaker.CLOSED
    assert not breaker.has_probes_out


def test_a_push_back_holds_the_next_probe() -> None:
    breaker = CircuitBreaker(POLICY)
    breaker.eject("error_rate", 0.0)
    breaker.tick(10.0)
    breaker.probe_started()
    assert breaker.probe_finished(None, 11.0, hold_s=3.0) is None
    assert not breaker.may_probe(13.9)
    assert breaker.may_probe(14.0)


def test_what_failed_is_told() -> None:
    breaker = CircuitBreaker(BreakerPolicy(failures=2))
    breaker.observe(False, 0, 0.0)
    breaker.eject(breaker.observe(False, 0, 0.1) or "", 0.1, "connect failures")
    assert breaker.what == "2 consecutive connect failures"


@pytest.mark.parametrize("level", [0, 70, 2000])
def test_open_time_never_exceeds_the_maximum(level: int) -> None:
    breaker = CircuitBreaker(BreakerPolicy(max_open_s=300.0))
    now = 0.0
    for _ in range(level + 1):
        breaker.eject("probe_failed", now)
        assert breaker.open_until - now <= 300.0
        now = breaker.open_until
        assert breaker.tick(now)


EVENTS = st.lists(st.tuples(st.sampled_from("+-o>()xn"), st.integers(0, 30)), max_size=150)


@given(EVENTS, st.integers(1, 3), st.integers(1, 6))
def test_invariants(events: list[tuple[str, int]], probes: int, failures: int) -> None:
    breaker = CircuitBreaker(BreakerPolicy(failures=failures, probes=probes))
    now, out, generations = 0.0, 0, [0]
    for step, number in events:
        before, generation = breaker.state, breaker.generation
        reason = None
        if step == ">":
            now += number
            breaker.tick(now)
        elif step == "(":
            if breaker.may_probe(now):
                breaker.probe_started()
                out += 1
        elif step in ")xn":
            if out:
                out -= 1
                reason = breaker.probe_finished({")": True, "x": False, "n": None}[step], now)
        else:
            reason = breaker.observe(step == "+", generation - (step == "o"), now)
            if step == "o":
                assert reason is None
        if reason:
            breaker.eject(reason, now)
        if breaker.generation != generation:
            out = 0
            assert breaker.generation == generation + 1
        assert breaker.has_probes_out == (out > 0)
        assert out <= probes
        if out:
            assert breaker.state is Breaker.PROBING
        assert (breaker.state is before) == (breaker.generation == generation)
        assert (before, breaker.state) not in {
            (Breaker.CLOSED, Breaker.PROBING),
            (Breaker.EJECTED, Breaker.CLOSED),
        }
        generations.append(breaker.generation)


@given(st.text("+-()x>5", max_size=60))
def test_one_that_takes_another_s_words_is_as_that_one(script: str) -> None:
    """But for permits, which are given, and the words for people."""
    policy = BreakerPolicy(failures=3, open_s=1.0)
    one, other = CircuitBreaker(policy), CircuitBreaker(policy)
    now = 100.0
    for step in script:
        now += 5.0 if step == ">" else 0.1
        one.tick(now)
        reason = None
        if step == "(" and one.may_probe(now):
            one.probe_started()
        elif step in ")x" and one.permits:
            reason = one.probe_finished(step == ")", now)
        elif step in "+-":
            reason = one.observe(step == "+", one.generation, now)
        if reason is not None:
            one.eject(reason, now)
        other.take_words(one.to_words(), one.permits)
        assert len(one.to_words()) == WORDS
        assert other.to_words() == pytest.approx(one.to_words(), rel=1e-12)
        assert (other.state, other.counts(), other.has_probes_out) == (one.state, one.counts(), one.has_probes_out)
        assert other.may_probe(now + 1e-6) == one.may_probe(now + 1e-6)
