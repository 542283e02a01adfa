"""Ten connections of HTTP/2 that do what costs them little and lbproxy much, as fast as they can.

Each is bounded: memory, CPU afterwards, and other clients, who go on. A second flood costs no more memory than the
first. Answers that nobody takes are read in little pieces once there is a MiB of them, and `timeouts.write` ends them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.h2_floods import ENDED, N_CONNECTIONS, UNTAKEN, WAITING, Pieces, batches, connections, pour
from tests.support.origin import Origin, echo
from tests.support.rig import get
from tests.support.waiting import wait_until
from tests.support.wire import Request

MIB = 1 << 20
MOST_GROWTH = 30 * MIB
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB + bytes(MIB)


def answer(request: Request) -> bytes:
    return BIG if request.target == "/big" else echo(request)


class Stage:
    """A daemon that has served each kind of request, so that what is made once is there."""

    def __init__(self, lb: LbProxy) -> None:
        self.lb = lb
        with Client(lb.port("in")) as client:
            for path in ("/big", "/small"):
                assert client.ask(get(path)).status == 200

    def n_floods(self) -> float:
        return self.lb.metric("h2_goaways_total", reason="flood") + self.lb.metric("h2_goaways_total", reason="error")


@contextlib.contextmanager
def staged(folder: Path, listener: dict[str, object], **top: object) -> Iterator[Stage]:
    with Origin(answer=answer) as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", **listener}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off", "circuit_breaker": "off"}},
            **top,
        }
        with LbProxy(config, folder) as lb:
            yield Stage(lb)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("floods"), {}) as made:
        yield made


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """It may keep little, and nobody may keep that for long."""
    listener: dict[str, object] = {"timeouts": {"write": "3s"}}
    limits = {"buffered_bytes": "16MiB"}
    with staged(tmp_path_factory.mktemp("tight"), listener, limits=limits) as made:
        yield made


def flood(stage: Stage, kind: Callable[[], Pieces], *, is_ended: bool, statuses: tuple[int, ...] = (200,)) -> int:
    """Ten connections of one kind, and a client beside them. Returns by how much memory grew at most, octets.

    statuses: what the client may get meanwhile; afterwards 200.
    """
    lb = stage.lb
    port = lb.port("in")
    before, n_floods = lb.rss_bytes(), stage.n_floods()
    most = before
    batches(kind)
    with connections(port) as socks:
        threads = [threading.Thread(target=pour, args=(sock, kind)) for sock in socks]
        for thread in threads:
            thread.start()
        n_asked = 0
        while n_asked < 20 or any(thread.is_alive() for thread in threads):
            assert status_of(port) in statuses
            n_asked += 1
            most = max(most, lb.rss_bytes())
        for thread in threads:
            thread.join()
        if is_ended:
            wait_until(lambda: stage.n_floods() >= n_floods + N_CONNECTIONS, "each of them to be told to go")
        wait_until(lambda: status_of(port) == 200, "the others to be served")
        wait_until(lambda: is_quiet(lb), "lbproxy to have nothing to do")
        most = max(most, lb.rss_bytes())
    lb.check_idle()
    wait_until(lambda: lb.metric("buffered_bytes") == 0, "nothing of it to be held")
    return most - before


def status_of(port: int) -> int:
    """Of the answer to a client that does nothing odd."""
    with Client(port) as client:
        return client.ask(get("/beside")).status


def is_quiet(lb: LbProxy) -> bool:
    """Has it used less than a tenth of a processor for a while?"""
    began, used = time.monotonic(), lb.cpu_s()
    time.sleep(0.5)
    return lb.cpu_s() - used < 0.1 * (time.monotonic() - began)


def check_growth(
    stage: Stage, kind: Callable[[], Pieces], *, is_ended: bool, statuses: tuple[int, ...] = (200,)
) -> None:
    """The first flood takes what it may, and of those after it one finds half of that again at least: memory that is
    kept for good would be missed by all of them, while what the C library gives back to the kernel differs."""
    assert flood(stage, kind, is_ended=is_ended, statuses=statuses) <= MOST_GROWTH
    growth: list[int] = []
    while not growth or (growth[-1] > MOST_GROWTH / 2 and len(growth) < 3):
        growth.append(flood(stage, kind, is_ended=is_ended, statuses=statuses))
    assert growth[-1] <= MOST_GROWTH / 2, growth


@pytest.mark.parametrize("kind", ENDED, ids=lambda kind: kind.__name__)
def test_floods_that_end_their_connection(stage: Stage, kind: Callable[[], Pieces]) -> None:
    check_growth(stage, kind, is_ended=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WAITING, ids=lambda kind: kind.__name__)
def test_floods_that_wait(stage: Stage, kind: Callable[[], Pieces]) -> None:
    check_growth(stage, kind, is_ended=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNTAKEN, ids=lambda kind: kind.__name__)
def test_answers_that_nobody_takes(tight: Stage, kind: Callable[[], Pieces]) -> None:
    """Nearly all that may be kept is theirs, so others get 503 until `timeouts.write` has ended these."""
    check_growth(tight, kind, is_ended=False, statuses=(200, 503))
