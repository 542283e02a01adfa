"""What is asked of the policies: one row per case, with what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from benchmarks.balancing.trace import MEAN_S

PATIENT_S: Final = 10.0
GOODPUT_PATIENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of one policy that must lie within bounds, or its ratio to that of a peer within the same repeat.

    metric: a field of measures.Figures. is_worst: the worst repeat counts, else the median.
    """

    text: str
    metric: str
    policy: str
    peer: str = ""
    at_most: float = inf
    at_least: float = -inf
    is_worst: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """speeds: of the servers of one lane. lanes: independent copies that run at the same time, for more requests in
    less time. failing, fail_status: how many servers fail within 1 ms, and how. patience_s: when clients leave.
    """

    name: str
    title: str
    speeds: tuple[float, ...]
    slots: int
    load: float
    lanes: int
    policies: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    patience_s: float = PATIENT_S
    failing: int = 0
    fail_status: int = 0

    @property
    def is_impatient(self) -> bool:
        return self.patience_s < PATIENT_S

    @property
    def capacity(self) -> float:
        """Requests a second that the servers of one lane can answer; failing ones count as if they worked."""
        return sum(self.speeds) * self.slots / MEAN_S

    @property
    def rate(self) -> float:
        return self.load * self.capacity


def _overload(load: float) -> Case:
    name = f"overload_{load:g}"
    return Case(
        name,
        f"4 servers, 1 slot, load {load:g}, clients leave after 1 s",
        speeds=(1.0,) * 4,
        slots=1,
        load=load,
        lanes=6,
        patience_s=GOODPUT_PATIENCE_S,
        policies=("lbproxy_slots", "haproxy_slots", "haproxy_tuned"),
        checks=(
            Check("goodput is at least 95 % of capacity", "goodput", "lbproxy_slots", at_least=0.95),
            Check("no server has two requests at once", "most_at_once", "lbproxy_slots", at_most=1, is_worst=True),
        ),
    )


def _sinkhole(status: int, policies: tuple[str, ...], checks: tuple[Check, ...]) -> Case:
    return Case(
        f"sinkhole_{status}",
        f"8 servers, 4 slots, load 0.6, one answers {status} in 1 ms",
        speeds=(1.0,) * 8,
        slots=4,
        load=0.6,
        lanes=1,
        policies=policies,
        checks=checks,
        failing=1,
        fail_status=status,
    )


_SINKHOLE_CHECKS = tuple(
    check
    for words, limited in (("", ""), (", with slots", "_slots"))
    for check in (
        Check(
            f"at most 0.3 % errors without retries{words}",
            "failed",
            f"lbproxy{limited}_no_retry",
            at_most=0.003,
            is_worst=True,
        ),
        Check(f"no error with retries{words}", "failed", f"lbproxy{limited}_retry", at_most=0.0, is_worst=True),
    )
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "slots_1",
            "4 servers, 1 slot, load 0.9",
            speeds=(1.0,) * 4,
            slots=1,
            load=0.9,
            lanes=8,
            policies=("lbproxy_slots", "haproxy_least", "haproxy_slots", "lbproxy_least", "lbproxy_ewma"),
            checks=(
                Check("p99 <= 0.8 x leastconn", "p99_ms", "lbproxy_slots", "haproxy_least", at_most=0.8),
                Check("p99 <= 1.05 x maxconn and queue", "p99_ms", "lbproxy_slots", "haproxy_slots", at_most=1.05),
                Check("no server has two requests at once", "most_at_once", "lbproxy_slots", at_most=1, is_worst=True),
                Check("nobody waits while a server is idle", "idle_wait_ms", "lbproxy_slots", at_most=1.0),
                Check("nobody failed", "failed", "lbproxy_slots", at_most=0.0, is_worst=True),
            ),
        ),
        Case(
            "slots_4",
            "4 servers, 4 slots, load 0.9",
            speeds=(1.0,) * 4,
            slots=4,
            load=0.9,
            lanes=3,
            policies=("lbproxy_slots", "haproxy_slots", "haproxy_least"),
            checks=(
                Check(
                    "mean within 3 % of maxconn and queue", "mean_ms", "lbproxy_slots", "haproxy_slots", at_most=1.03
                ),
                Check("no server has five requests", "most_at_once", "lbproxy_slots", at_most=4, is_worst=True),
                Check("nobody waits while a slot is idle", "idle_wait_ms", "lbproxy_slots", at_most=1.0),
            ),
        ),
        Case(
            "speeds",
            "12 servers and 4 at quarter speed, 4 slots, load 0.7",
            speeds=(1.0,) * 12 + (0.25,) * 4,
            slots=4,
            load=0.7,
            lanes=1,
            policies=("lbproxy_slots", "haproxy_slots", "lbproxy_ewma_slots", "lbproxy_ewma", "haproxy_least"),
            checks=(
                Check("p99 no worse than maxconn and queue", "p99_ms", "lbproxy_slots", "haproxy_slots", at_most=1.02),
                Check(
                    "mean no worse than maxconn and queue", "mean_ms", "lbproxy_slots", "haproxy_slots", at_most=1.02
                ),
                Check("no server has five requests", "most_at_once", "lbproxy_slots", at_most=4, is_worst=True),
            ),
        ),
        _overload(1.1),
        _overload(1.3),
        _sinkhole(
            503,
            (
                "lbproxy_no_retry",
                "lbproxy_slots_no_retry",
                "lbproxy_retry",
                "lbproxy_slots_retry",
                "haproxy_least",
                "haproxy_slots",
            ),
            _SINKHOLE_CHECKS,
        ),
        _sinkhole(
            500,
            (
                "lbproxy_no_retry_500",
                "lbproxy_no_retry",
                "lbproxy_slots_no_retry",
                "lbproxy_retry",
                "lbproxy_slots_retry",
                "haproxy_least",
                "haproxy_slots",
            ),
            (
                Check(
                    "at most 1 % errors without retries where 500 counts",
                    "failed",
                    "lbproxy_no_retry_500",
                    at_most=0.01,
                    is_worst=True,
                ),
                *_SINKHOLE_CHECKS,
            ),
        ),
        Case(
            "outage",
            "8 servers, all answer 503 in 1 ms",
            speeds=(1.0,) * 8,
            slots=4,
            load=0.6,
            lanes=1,
            policies=("lbproxy_retry", "haproxy_least"),
            checks=(Check("attempts at most 1.3 x requests", "attempts", "lbproxy_retry", at_most=1.3, is_worst=True),),
            failing=8,
            fail_status=503,
        ),
    )
}
