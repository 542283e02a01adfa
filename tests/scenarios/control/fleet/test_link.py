"""Rate limits of a fleet, with a real Redis: several lbproxies have one limit, and go on without it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.ports import consecutive_ports
from tests.support.redis_store import Store, redis_time
from tests.support.rig import get
from tests.support.servers import needed
from tests.support.waiting import wait_until

REPLICAS = 3
PATIENT = "50s"  # the answers of a Redis that is there are waited for, however busy the machine is


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.program.kill()


def settings(store: Store, **limit: object) -> dict[str, object]:
    fleet = {"url": store.url, "timeout": PATIENT}
    return {
        "rate_limits": [{"name": "fleet", "key": "header:X-Tenant", "store": fleet, **limit}],
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"body": "x"}}]}],
    }


@contextlib.contextmanager
def replicas(config: dict[str, object], folder: Path, count: int = REPLICAS) -> Iterator[list[LbProxy]]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(LbProxy(config, folder / f"lb{number}")) for number in range(count)]
        for lb in found:
            lb.wait_logged("answers")
        yield found


def hammer(lb: LbProxy, count: int, found: Counter[int], lock: threading.Lock) -> None:
    with Client(lb.port("in")) as client:
        for _ in range(count):
            status = client.ask(get("/", "X-Tenant: t")).status
            with lock:
                found[status] += 1


def test_the_limit_is_that_of_all(store: Store, tmp_path: Path) -> None:
    """A burst, and nothing more for hours: so what passes depends on no clock."""
    with replicas(settings(store, rate="1/h", burst=60), tmp_path) as lbs:
        found: Counter[int] = Counter()
        lock = threading.Lock()
        threads = [threading.Thread(target=hammer, args=(lb, 20, found, lock)) for lb in lbs for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {200: 60, 429: 60}
        assert sum(lb.metric("rate_limited_total", rule="fleet") for lb in lbs) == 60
        assert not any(lb.metric("rate_limit_open_total") for lb in lbs)


def test_tokens_that_were_taken_in_advance_are_not_more_than_there_are(store: Store, tmp_path: Path) -> None:
    """A fast limit: each of the lbproxies takes some for requests to come. Over all the time that the test took no more
    can have passed than the burst and what the rate gave, by the clock of Redis."""
    with replicas(settings(store, rate="1000/s", burst=200), tmp_path, 2) as lbs:
        found: Counter[int] = Counter()
        lock = threading.Lock()
        before = redis_time(store)
        threads = [threading.Thread(target=hammer, args=(lb, 200, found, lock)) for lb in lbs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s = redis_time(store) - before
        assert found[200] + found[429] == 400
        assert found[200] <= 200 + 1000 * elapsed_s + 1
        assert found[200] >= 200 * 0.95, "the burst was there"


def test_redis_is_killed_and_comes_back_under_load(store: Store, tmp_path: Path) -> None:
    with replicas(settings(store, rate="1000000/s", burst=1000000), tmp_path, 1) as [lb]:
        found: Counter[int] = Counter()
        lock, stop = threading.Lock(), threading.Event()

        def load() -> None:
            while not stop.is_set():
                hammer(lb, 5, found, lock)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: found[200] > 20, "requests to pass")
            store.program.kill()
            lb.wait_metric("rate_limit_open_total", 20, rule="fleet")
            lb.wait_logged("is lost, so each lbproxy limits by itself")
            store.path.unlink()
            store.start()
            lb.wait_logged("answers", times=2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(found) == {200}
        before = lb.metric("rate_limit_open_total")
        hammer(lb, 10, found, lock)
        assert lb.metric("rate_limit_open_total") == before, "Redis is asked again"


def test_a_redis_that_hangs_holds_nobody_up(store: Store, tmp_path: Path) -> None:
    config = settings(store, rate="1/h", burst=3)
    limits = config["rate_limits"]
    assert isinstance(limits, list)
    limits[0]["store"]["timeout"] = "5ms"
    with replicas(config, tmp_path, 1) as [lb]:
        store.program.process.send_signal(signal.SIGSTOP)
        found: Counter[int] = Counter()
        hammer(lb, 5, found, threading.Lock())
        assert found == {200: 3, 429: 2}, "what this lbproxy lets through by itself"
        assert lb.metric("rate_limit_open_total") == 3
        lb.wait_logged("it does not answer")
        store.program.process.send_signal(signal.SIGCONT)
        wait_until(lambda: lb.stderr.count("answers") == 2, "another connection")


def test_scripts_that_redis_forgot_are_loaded_again(store: Store, tmp_path: Path) -> None:
    with replicas(settings(store, rate="1/h", burst=5), tmp_path, 1) as [lb]:
        redis_cli = [needed("redis-cli"), "-s", str(store.path)]
        subprocess.run([*redis_cli, "script", "flush"], check=True, capture_output=True)
        found: Counter[int] = Counter()
        hammer(lb, 1, found, threading.Lock())
        assert found == {200: 1}
        wait_until(lambda: lb.stderr.count("answers") == 2, "another connection")
        hammer(lb, 6, found, threading.Lock())
        assert found[429] >= 1


def test_over_tls_with_a_name_and_a_password(tmp_path: Path) -> None:
    """Not with others, nor where another authority is believed: then each lbproxy limits by itself, and says why."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    files = authority.issue("redis", "localhost")
    port = consecutive_ports(1)
    tls = ["--tls-port", str(port), "--tls-cert-file", files.cert, "--tls-key-file", files.key]
    login = ["--user", "lb", "on", ">s3cret", "~*", "+@all"]
    with contextlib.ExitStack() as stack:
        store = Store(tmp_path, *tls, "--tls-ca-cert-file", authority.ca, "--tls-auth-clients", "no", *login)
        stack.callback(store.kill)
        limit: dict[str, object] = {"name": "fleet", "key": "header:X-Tenant", "rate": "1/h", "burst": 3}

        def asking(folder: str, login: str, ca: str) -> LbProxy:
            url = f"rediss://{login}localhost:{port}/2?ssl_ca_certs={ca}"
            limits = {"rate_limits": [{**limit, "store": {"url": url, "timeout": PATIENT}}]}
            return stack.enter_context(LbProxy({**settings(store), **limits}, tmp_path / folder))

        lb = asking("good", "lb:s3cret@", authority.ca)
        lb.wait_logged(f"Redis at rediss://localhost:{port}/2 answers")
        found: Counter[int] = Counter()
        hammer(lb, 5, found, threading.Lock())
        assert found == {200: 3, 429: 2} and lb.metric("rate_limit_open_total") == 0
        asked = [needed("redis-cli"), "-s", str(store.path), "-n", "2", "dbsize"]
        assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() == "1"
        asking("wrong", "lb:wrong@", authority.ca).wait_logged("limits by itself: it says -WRONGPASS")
        asking("other", "lb:s3cret@", other.ca).wait_logged("limits by itself: its certificate is not good: ")
        assert "s3cret" not in lb.stderr
