"""What `fair_by` gives to clients beside one that sends ten times as much, in virtual time (mean service time 100 ms,
log-normal). Five servers with one slot, so that the share of each of five clients is what one server does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from benchmarks.simulation.simulator import QueueSpec, Report, Simulation
from lbproxy.domain.fairness import FairRules
from lbproxy.request_key import read_key

pytestmark = pytest.mark.simulation

WARM_UP_S: Final = 10.0
SECONDS: Final = 200.0
LIGHT: Final = ("l1", "l2", "l3", "l4")
CROWD: Final[Mapping[str, float]] = {"heavy": 10.0, **dict.fromkeys(LIGHT, 1.0)}
RULES: Final = FairRules(read_key("client_ip"))


def crowd(
    seed: int,
    load: float,
    rules: FairRules | None = RULES,
    size: int = 1024,
    workers: int = 0,
    kills: Sequence[tuple[float, int]] = (),
    seconds: float = SECONDS,
) -> Report:
    queue = QueueSpec(size, 10.0, "adaptive", rules)
    simulation = Simulation(n=5, slots=1, seed=seed, max_inflight=1, queue=queue, clients=CROWD, workers=workers)
    report = simulation.run(load, seconds, kills)
    assert simulation.is_everything_back()
    return report


def alone(seed: int, load: float) -> Report:
    """A light client that has one server for itself: its share. load: of that server."""
    simulation = Simulation(n=1, slots=1, seed=seed, max_inflight=1, queue=QueueSpec(), clients={"l1": 1.0})
    return simulation.run(load, SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1024, 16])
@pytest.mark.parametrize("load", [1.4, 2.1])
def test_who_sends_ten_times_as_much_gets_its_share_and_no_more(load: float, size: int) -> None:
    """The light clients ask for 0.5 and 0.75 of their share. p99 at 0.5: 0.9 s, alone on a server of their own 2.5 s,
    without `fair_by` 9.5 s."""
    together, lonely = crowd(1, load, size=size), alone(1, load / 14 * 5)
    p99 = max(together.p99_of(client, WARM_UP_S) for client in LIGHT)
    assert p99 <= 1.2 * lonely.p99_of("l1", WARM_UP_S)
    served = {client: len(found) for client, found in together.by_client.items()}
    light = sum(served[client] for client in LIGHT)
    assert light >= 0.97 * 4 / 14 * load * 50 * SECONDS
    assert served["heavy"] >= 0.9 * (50 * SECONDS - light)


@pytest.mark.slow
def test_without_it_the_others_wait_behind_the_flood() -> None:
    together, lonely = crowd(1, 1.4, None), alone(1, 0.5)
    assert together.p99_of("l1", WARM_UP_S) > 3 * lonely.p99_of("l1", WARM_UP_S)
    full = crowd(1, 1.4, None, size=16)
    fair = crowd(1, 1.4, size=16)
    assert len(full.by_client["l1"]) < 0.85 * len(fair.by_client["l1"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1024, 16])
def test_workers_share_the_turns(size: int) -> None:
    one, four = (crowd(1, 1.4, size=size, workers=workers, seconds=100.0) for workers in (0, 4))
    for client in LIGHT:
        assert four.p99_of(client, WARM_UP_S) <= 1.2 * max(one.p99_of(other, WARM_UP_S) for other in LIGHT)
        assert len(four.by_client[client]) >= 0.99 * len(one.by_client[client])


def test_workers_that_are_killed_leave_no_turns_behind() -> None:
    kills = [(number / 2, number % 4) for number in range(20, 120)]
    report = crowd(1, 1.4, size=32, workers=4, kills=kills, seconds=60.0)
    assert report.killed > 100 and report.most_at_once == 1
