"""A plan says in words what a reload does; these are its transcripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.process.plan import plan

OLD = """
listeners:
  - bind: 127.0.0.1:5000
    routes:
      - match: {path_prefix: /v2}
        pool: b
      - pool: a
  - bind: [127.0.0.1:5100, "unix:/run/lb.sock"]
    name: inner
    pool: a
pools:
  a:
    servers: [127.0.0.1:5001, {address: 127.0.0.1:5002, name: second}]
  b:
    servers: [127.0.0.1:6001]
    strategy: round_robin
"""


def config(text: str) -> Config:
    return load_text(text, "lb.yaml", {}).config


def told(new: str, old: str = OLD) -> list[str]:
    return [str(step) for step in plan(config(old), config(new))]


def test_the_same_file_is_no_work() -> None:
    assert told(OLD) == []


def test_what_is_written_in_another_way_is_no_work() -> None:
    new = OLD.replace("127.0.0.1:5001,", "{address: 127.0.0.1:5001},").replace("round_robin", "{name: round_robin}")
    assert told(new) == []


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        ("[127.0.0.1:6001]", "[127.0.0.1:6001, 127.0.0.1:6002]", ["add server b/127.0.0.1:6002"]),
        ("[127.0.0.1:5001, ", "[", ["drop server a/127.0.0.1:5001"]),
        (
            "127.0.0.1:5002, name",
            "127.0.0.1:5003, name",
            ["add server a/second", "drop server a/second"],
        ),
        (
            "name: second",
            "name: second, weight: 3, max_inflight: 2",
            ["change server a/second: weight: 1 -> 3, max_inflight: off -> 2"],
        ),
        (
            "servers: [127.0.0.1:6001]",
            "servers: [127.0.0.1:6001]\n    timeouts: {read: 5m, total: 10s}\n    max_inflight: 4",
            ["change pool b: max_inflight: off -> 4, timeouts.read: 60 -> 300, timeouts.total: off -> 10"],
        ),
        ("round_robin", "random", ["replace strategy of pool b: strategy.name: round_robin -> random"]),
        (
            "strategy: round_robin",
            "strategy: round_robin\n    health_check: /health",
            ["change checks of pool b: health_check.type: tcp -> http, health_check.path: / -> /health"],
        ),
        (
            "strategy: round_robin",
            "strategy: round_robin\n    health_check: off",
            ["change checks of pool b: health_check: {} -> off"],
        ),
        ("/v2", "/v3", ["replace routes of listener 127.0.0.1:5000"]),
        (
            "name: inner",
            "name: outer",
            [
                "change listener 127.0.0.1:5100: name: inner -> outer",
                "change listener unix:/run/lb.sock: name: inner -> outer",
            ],
        ),
        (', "unix:/run/lb.sock"]', "]", ["drop listener unix:/run/lb.sock"]),
        (
            "name: inner",
            "name: inner\n    timeouts: {keep_alive: 10s}\n    limits: {body_bytes: 1MiB}",
            [
                f"change listener {place}: timeouts.keep_alive: 75 -> 10, limits.body_bytes: off -> 1048576"
                for place in ("127.0.0.1:5100", "unix:/run/lb.sock")
            ],
        ),
        (
            "pools:\n",
            "limits: {connections: 100}\nlog: {level: debug}\ntrusted_proxies: [10.0.0.0/8]\npools:\n",
            [
                "change process: log.level: info -> debug, limits.connections: off -> 100, "
                "trusted_proxies: [] -> [10.0.0.0/8]"
            ],
        ),
        (
            "pools:\n",
            "admin: {token: very-secret-1}\npools:\n",
            ["change process: admin.token: (secret) -> (another secret)"],
        ),
    ],
)
def test_a_change_is_its_step(old: str, new: str, steps: list[str]) -> None:
    assert old in OLD
    assert told(OLD.replace(old, new)) == steps


def test_pools_come_before_the_routes_that_use_them_and_go_after() -> None:
    new = OLD.replace("        pool: b", "        pool: c").replace("  b:\n", "  c:\n")
    assert told(new) == [
        "add pool c",
        "add server c/127.0.0.1:6001",
        "replace routes of listener 127.0.0.1:5000",
        "drop server b/127.0.0.1:6001",
        "drop pool b",
    ]


def test_listeners_whose_port_the_kernel_chooses_are_told_apart_by_name() -> None:
    old = """
listeners:
  - {bind: "127.0.0.1:0", name: a, pool: p}
  - {bind: "127.0.0.1:0", name: b, pool: p}
pools: {p: {servers: [127.0.0.1:1]}}
"""
    new = old.replace("name: b", "name: c")
    assert told(new, old) == ["add listener 127.0.0.1:0 (c)", "drop listener 127.0.0.1:0 (b)"]


SERVERS = st.lists(st.sampled_from([f"127.0.0.1:{port}" for port in range(1, 9)]), min_size=1, unique=True)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A config with one to three pools, a listener for each of some ports."""
    pools = draw(st.dictionaries(st.sampled_from("pqr"), SERVERS, min_size=1))
    ports = draw(st.lists(st.sampled_from([5000, 5001, 5002]), min_size=1, unique=True))
    lines = ["listeners:"]
    for port in ports:
        lines += [f"  - bind: 127.0.0.1:{port}", f"    pool: {draw(st.sampled_from(sorted(pools)))}"]
    lines.append("pools:")
    for name, servers in pools.items():
        lines += [f"  {name}:", f"    servers: [{', '.join(servers)}]", f"    slow_start: {draw(st.integers(0, 2))}s"]
    return "\n".join(lines)


@given(files(), files())
def test_steps_are_exactly_what_differs(one: str, other: str) -> None:
    """What is added and dropped is the difference of the two sets, each once; and there is a way back."""
    old, new = config(one), config(other)
    steps = plan(old, new)
    assert len(set(steps)) == len(steps)

    def things(of: Config) -> set[str]:
        servers = {f"server {name}/{server.name}" for name, pool in of.pools.items() for server in pool.servers}
        pools = {f"pool {name}" for name in of.pools}
        return servers | pools | {f"listener {bind}" for listener in of.listeners for bind in listener.bind}

    texts = [str(step) for step in steps]
    assert {text.removeprefix("add ") for text in texts if text.startswith("add ")} == things(new) - things(old)
    assert {text.removeprefix("drop ") for text in texts if text.startswith("drop ")} == things(old) - things(new)
    assert (steps == ()) == (old == new or not plan(new, old))
    assert plan(new, new) == ()
