"""Rendered configurations: policies differ in what their names say, and in nothing else."""

import pytest

from benchmarks.balancing.configs import POLICIES, render
from lbproxy.config.loader import load_text

LANES = [(9000, [9001, 9002]), (9010, [9011, 9012])]
OURS = [name for name, policy in POLICIES.items() if policy.program == "lbproxy"]


@pytest.mark.parametrize("name", OURS)
def test_lbproxy_accepts_its_config_without_a_warning(name: str) -> None:
    loaded = load_text(render(POLICIES[name], LANES, 4, 9009), "balancing.yaml", {})
    assert loaded.warnings == ()
    assert [str(listener.bind[0]) for listener in loaded.config.listeners] == ["127.0.0.1:9000", "127.0.0.1:9010"]
    for number, pool in enumerate(loaded.config.pools.values()):
        assert [server.address.port for server in pool.servers] == LANES[number][1]
        assert pool.max_inflight == (4 if POLICIES[name].has_slots else None)
        assert pool.strategy.name == POLICIES[name].strategy
        assert (pool.queue.size, pool.queue.timeout, pool.queue.order) == (1024, 10.0, "adaptive")


def test_retries_are_on_in_one_policy_only() -> None:
    def attempts(name: str) -> tuple[int, bool]:
        config = load_text(render(POLICIES[name], LANES, 4, 9009), "balancing.yaml", {}).config
        retry = config.pools["lane0"].retry
        return retry.attempts, retry.idempotent

    assert (attempts("lbproxy_no_retry"), attempts("lbproxy_retry")) == ((0, False), (2, True))


def test_haproxy() -> None:
    least, slots, tuned = (
        render(POLICIES[name], LANES, 4, 0) for name in ("haproxy_least", "haproxy_slots", "haproxy_tuned")
    )
    for text in (least, slots, tuned):
        assert text.count("balance leastconn") == 2
        assert "server s9011 127.0.0.1:9011 check inter 2s" in text
    assert "maxconn 4\n" in slots and "maxconn 4\n" in tuned and "maxconn 4\n" not in least
    assert "timeout queue 10000ms" in slots and "timeout queue 300ms" in tuned
    assert "abortonclose" in tuned and "abortonclose" not in slots
