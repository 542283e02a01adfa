"""Three lbproxies and one Redis hold a limit with the time-out that users have, under load, and over its death.

On a machine that is busy 5 ms are missed often: what passes then is owed (lbproxy/control/fleet/buckets.py), so the
limit holds all the same. LBPROXY_FLEET_S=60 in the environment is what `make soak` does: for 10 s each time, at ten
times the rate.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.redis_store import Store, redis_time
from tests.support.rig import get
from tests.support.waiting import wait_until

FULL_S = float(os.environ.get("LBPROXY_FLEET_S", "0"))
RATE, BURST = (300, 300) if FULL_S else (30, 30)
HOLD_S = 10.0 if FULL_S else 3.0
SAMPLE_S = 0.25
REPLICAS = 3
CLIENTS_EACH = 2


@dataclass
class Load:
    """Clients of all lbproxies that ask for one key, each 30 times a second at most (300 in the long form)."""

    lbs: list[LbProxy]
    found: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _run(self, lb: LbProxy) -> None:
        with Client(lb.port("in"), timeout_s=60) as client:
            while not self._stop.wait(1.0 / RATE):
                status = client.ask(get("/", "X-Tenant: t")).status
                with self._lock:
                    self.found[status] += 1

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._run, args=(lb,)) for lb in self.lbs for _ in range(CLIENTS_EACH)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        assert set(self.found) <= {200, 429}, self.found

    def taken(self) -> Counter[int]:
        with self._lock:
            return self.found.copy()

    def open(self) -> float:
        return sum(lb.metric("rate_limit_open_total") for lb in self.lbs)


def check_limit(load: Load, store: Store) -> None:
    """Over some seconds no more passes than the rate gives, within 5 %; and no less, where enough is asked for all the
    time and Redis is not late: tokens that were taken in advance and a bucket that is full are lost."""
    n_open, before, began = load.open(), load.taken(), redis_time(store)
    is_calm, last, at = True, before, time.monotonic()
    until = at + HOLD_S
    while at < until:
        time.sleep(SAMPLE_S)
        now, found = time.monotonic(), load.taken()
        is_calm = is_calm and (found - last).total() > 1.1 * RATE * (now - at)
        last, at = found, now
    after, elapsed_s = load.taken(), redis_time(store) - began
    n_open = load.open() - n_open
    passed, asked = after[200] - before[200], (after - before).total()
    given = RATE * elapsed_s
    told = f"{passed} of {asked} passed in {elapsed_s:.2f} s, {given:.0f} are the limit, {n_open:.0f} without an answer"
    print(told if is_calm else f"{told}, and the machine did not ask enough")
    # Of one burst of tokens some may be left at the beginning, and others be owed at the end.
    assert passed <= 1.05 * given + 0.1 * BURST, told
    if is_calm and n_open < 0.01 * asked:
        assert passed >= 0.95 * given - 0.1 * BURST, told


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_limit_holds_and_outlives_redis(tmp_path: Path, workers: int) -> None:
    store = Store(tmp_path)
    config: dict[str, object] = {
        "workers": workers,
        "rate_limits": [
            {"name": "fleet", "key": "header:X-Tenant", "rate": f"{RATE}/s", "burst": BURST, "store": store.url}
        ],
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"body": "x"}}]}],
    }
    with contextlib.ExitStack() as stack:
        stack.callback(store.kill)
        lbs = [stack.enter_context(LbProxy(config, tmp_path / f"lb{number}")) for number in range(REPLICAS)]
        for lb in lbs:
            lb.wait_logged("answers", times=workers)
        load = stack.enter_context(Load(lbs).running())
        for _ in range(3 if FULL_S else 1):
            wait_until(lambda: load.taken()[429] > RATE, "the burst to be used up")
            check_limit(load, store)
            n_open, before = load.open(), load.taken()
            store.kill()
            wait_until(lambda: load.open() > n_open + RATE, "requests to pass without Redis")  # noqa: B023
            assert load.taken()[200] > before[200]
            n_up = [lb.stderr.count("answers") for lb in lbs]
            store.restart()
            for lb, count in zip(lbs, n_up, strict=True):
                lb.wait_logged("answers", times=count + workers)
            before = load.taken()
            wait_until(lambda: load.taken()[429] > before[429] + RATE, "the new burst to be used up")  # noqa: B023
            check_limit(load, store)
