"""What people are told of bodies and splits: the same that traffic meets, without a draw of chance."""

from __future__ import annotations

import pytest

from lbproxy.control.body_words import SeenBody, beyond_fork
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.runtime import ListenerRuntime
from tests.support.fake_transport import FakeLb, post

CONFIG = """
access_log: off
listeners:
  - name: web
    bind: "127.0.0.1:5000"
    routes:
      - {match: {json: {/model: "llama-*"}}, pool: a}
      - {match: {json: {/model: "split"}}, split: {by: "json:/user", pools: {a: 1, b: 1}}}
      - {split: {a: 1, b: 3, c: 0}}
pools:
  a: {servers: ["127.0.0.1:9001"], health_check: off}
  b: {servers: ["127.0.0.1:9002"], health_check: off}
  c: {servers: ["127.0.0.1:9003"], health_check: off}
"""


def told(listener: ListenerRuntime, body: bytes, *pools: str) -> tuple[int | None, str, dict[str, object] | None]:
    """The position of the route, the pool, and what is told of the split."""
    head = post(body)[: -len(body)]
    prepared = prepare(listener, head, is_trusted=False, log_format=None, local_host="h")
    assert prepared.fork is not None
    chosen, split = beyond_fork(prepared.fork, "192.0.2.1", body, pools)
    assert chosen.pool is not None
    return listener.position_of(chosen.route), chosen.pool.name, split


def test_a_body_as_routes_see_it() -> None:
    seen = SeenBody(b'{"model": "llama-3", "n": 1, "x": {"y": "a", "y": "b"}}')
    assert seen.holds("/model", "llama-*") and not seen.holds("/model", "qwen")
    assert seen.holds("/n", "1") and not seen.holds("/x/y", "*")
    assert (seen.text("/model"), seen.text("/x/y"), seen.text("/z")) == ("llama-3", "", "")


def test_by_the_body() -> None:
    with FakeLb(CONFIG) as lb:
        assert told(lb.listener.runtime, b'{"model": "llama-3"}') == (0, "a", None)


def test_by_a_key() -> None:
    with FakeLb(CONFIG) as lb:
        position, pool, split = told(lb.listener.runtime, b'{"model": "split", "user": "u1"}')
        assert position == 1
        assert split is not None
        assert (split["pool"], split["shown"], split["value"], split["by"]) == (pool, pool, "u1", "json:/user")
        position, pool, split = told(lb.listener.runtime, b'{"model": "split"}')
        assert split is not None
        assert (position, split["pool"]) == (1, None)
        assert split["why"] == "the request has no json:/user: it goes by chance"


@pytest.mark.parametrize(("wanted", "pool"), [((), "b"), (("a",), "a"), (("c",), "b"), (("x",), "b")])
def test_where_chance_decides_one_pool_that_may_get_it_is_spoken_of(wanted: tuple[str, ...], pool: str) -> None:
    with FakeLb(CONFIG) as lb:
        state = lb.wiring._rng.getstate()
        position, found, split = told(lb.listener.runtime, b"{}", *wanted)
        assert (position, found) == (2, pool)
        assert split == {
            "by": None,
            "value": None,
            "pool": None,
            "pools": [{"pool": "a", "chance": 0.25}, {"pool": "b", "chance": 0.75}, {"pool": "c", "chance": 0.0}],
            "shown": pool,
            "why": "",
        }
        assert lb.wiring._rng.getstate() == state
