"""Checks over several keys, without the loader around them. The sentences as users see them are in refused.txt."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from lbproxy.config import checks, strategy_checks
from lbproxy.config.server_model import BUILT_IN_STRATEGIES
from lbproxy.config.source import Document, parse
from lbproxy.config.validation import validate

LISTENERS = "listeners: [{bind: ':5000', pool: p}]\n"
POOLS = "pools: {p: {servers: ['a:1']}}\n"


def checked(text: str) -> Document:
    document = parse(text, "lb.yaml", {})
    config = validate(document)
    assert config is not None
    checks.check(config, document)
    return document


def said(text: str) -> list[str]:
    return [
        f"{'warning ' if problem.is_warning else ''}{problem.path}: {problem.message}"
        for problem in checked(text).problems
    ]


def about_pool(*lines: str) -> list[str]:
    """What is said of pool p with these keys; it has one server unless they say otherwise."""
    servers = [] if any(line.startswith("servers:") for line in lines) else ["servers: ['a:1']"]
    return said(LISTENERS + "pools:\n  p:\n" + "".join(f"    {line}\n" for line in [*servers, *lines]))


def about_listener(*lines: str) -> list[str]:
    return said("listeners:\n  - pool: p\n" + "".join(f"    {line}\n" for line in lines) + POOLS)


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is installed that offers the strategy `coldest_gpu`, and another that offers something else."""
    installed = [
        EntryPoint("coldest_gpu", "gpu:Coldest", strategy_checks.STRATEGY_GROUP),
        EntryPoint("elsewhere", "gpu:Other", "other.group"),
    ]
    monkeypatch.setattr(
        strategy_checks, "entry_points", lambda group: [point for point in installed if point.group == group]
    )


def test_a_sound_config_gives_rise_to_nothing() -> None:
    assert said(LISTENERS + POOLS) == []
    text = (
        "listeners:\n"
        "  - {bind: [':5000', 'unix:/a'], name: web, mode_bits: '0600', half_close: answer,"
        " routes: [{match: {path: /a}, pool: q}, {pool: p}]}\n"
        "  - {bind: ':5001', mode: tcp, pool: q, timeouts: {write: 5s}, limits: {connections_per_ip: 5}}\n"
        "pools:\n"
        "  p: {servers: ['a:1-3', {address: 'b:1', weight: 0}], strategy: round_robin, health_check: /up,"
        " headers: {request: {set: {X-A: b}}}}\n"
        "  q: {servers: [{address: 'c:1', weight: 5}], strategy: weighted_round_robin,"
        " health_check: {send: a, expect: b, interval: 3s, timeout: 3s}}\n"
        "shutdown: {delay: 5s, grace: 5s}\n"
    )
    assert said(text) == []


def test_lists_that_may_not_be_empty() -> None:
    assert said("listeners: []\n" + POOLS) == [
        "listeners: needs at least one listener",
        "warning pools.p: no listener uses this pool",
    ]
    assert about_listener("bind: []") == ["listeners[0].bind: needs at least one address"]
    assert about_pool("servers: []") == ["pools.p.servers: needs at least one server"]


def test_pools_are_named_by_listeners_and_by_routes() -> None:
    pools = "pools: {predict: {servers: ['a:1']}, embed: {servers: ['b:1']}, spare: {servers: ['c:1']}}\n"
    listeners = "listeners: [{bind: ':1', pool: predict}, {bind: ':2', routes: [{pool: embed}]}]\n"
    assert said(listeners + pools) == ["warning pools.spare: no listener uses this pool"]


@pytest.mark.parametrize(
    ("pools", "hint"),
    [
        ("{predict: {servers: ['a:1']}}", "did you mean predict?"),
        ("{x: {servers: ['a:1']}, y: {servers: ['b:1']}}", "pools: x, y"),
        ("{}", "there are no pools"),
    ],
)
def test_a_pool_that_is_not_there(pools: str, hint: str) -> None:
    missing = checked(f"listeners: [{{bind: ':1', pool: predcit}}]\npools: {pools}\n").problems[0]
    assert (missing.path, missing.message) == ("listeners[0].pool", "there is no pool predcit")
    assert missing.suggestion == hint


def test_a_pool_with_a_fault_of_its_own_is_there() -> None:
    assert said(LISTENERS + "pools: {p: 5}\n") == ["pools.p: expected a mapping, got 5"]


def test_names_of_listeners_are_unique() -> None:
    text = "listeners: [{bind: ':1', pool: p, name: a}, {bind: ':2', pool: p}, {bind: ':3', pool: p, name: a}]\n"
    assert said(text + POOLS) == ["listeners[2].name: listeners[0] has this name too"]


def test_permissions_without_a_unix_socket() -> None:
    assert about_listener("bind: ':1'", "mode_bits: '0600'") == [
        "warning listeners[0].mode_bits: has no effect: no bind is a unix socket"
    ]
    assert about_listener("bind: [':1', 'unix:/a']", "mode_bits: '0600'") == []


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("underscore_headers: drop", "underscore_headers"),
        ("half_close: abort", "half_close"),
        ("timeouts: {request_head: 5s}", "timeouts.request_head"),
        ("timeouts: {request_body: 5s}", "timeouts.request_body"),
        ("timeouts: {keep_alive: 5s}", "timeouts.keep_alive"),
        ("limits: {head_bytes: 5KiB}", "limits.head_bytes"),
        ("limits: {headers: 5}", "limits.headers"),
        ("limits: {body_bytes: 5}", "limits.body_bytes"),
        ("limits: {trailer_bytes: 5}", "limits.trailer_bytes"),
        ("limits: {chunk_overhead: 5}", "limits.chunk_overhead"),
    ],
)
def test_what_only_http_has_is_pointless_in_tcp_mode(line: str, path: str) -> None:
    assert about_listener("bind: ':1'", "mode: tcp", line) == [
        f"warning listeners[0].{path}: has no effect on a TCP listener"
    ]
    assert about_listener("bind: ':1'", line) == []


@pytest.mark.parametrize("line", ["timeouts: {write: 5s}", "limits: {connections_per_ip: 5}"])
def test_what_tcp_mode_uses_is_not_pointless(line: str) -> None:
    assert about_listener("bind: ':1'", "mode: tcp", line) == []


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("['a:1', 'b:1', 'a:1']", ["pools.p.servers[2]: servers[0] has the address a:1 too"]),
        ("['a:5-9', 'a:7']", ["pools.p.servers[1]: servers[0] has the address a:7 too"]),
        ("['a:5-9', 'a:9-12']", ["pools.p.servers[1]: servers[0] has the address a:9 too"]),
        ("['a:5-9', 'a:10-12', 'b:5-9']", []),
        (
            "[{address: 'a:5-9', name: x}, {address: 'b:1', name: x-7}]",
            ["pools.p.servers[1]: servers[0] has the name x-7 too"],
        ),
        ("['a:1', {address: 'b:1', name: 'a:1'}]", ["pools.p.servers[1]: servers[0] has the name a:1 too"]),
        ("['unix:/a', 'unix:/a']", ["pools.p.servers[1]: servers[0] has the address unix:/a too"]),
    ],
)
def test_a_server_stands_once_in_a_pool(servers: str, expected: list[str]) -> None:
    assert about_pool(f"servers: {servers}") == expected


def test_two_pools_may_share_a_server() -> None:
    listeners = "listeners: [{bind: ':1', pool: p}, {bind: ':2', pool: q}]\n"
    assert said(listeners + "pools: {p: {servers: ['a:1']}, q: {servers: ['a:1']}}\n") == []


def test_positions_are_those_of_the_file_though_wrong_servers_were_cut_out() -> None:
    assert about_pool("servers: ['a', 'b:1', 'c:x', 'b:1']") == [
        "pools.p.servers[0]: 'a' has no port",
        "pools.p.servers[2]: 'x' is not a port (0 to 65535)",
        "pools.p.servers[3]: servers[1] has the address b:1 too",
    ]


FIRST_WITHOUT_LIMIT = (
    "warning pools.p.strategy: fills servers up to `max_inflight`, which is off: one without it gets everything"
)


@pytest.mark.parametrize("strategy", BUILT_IN_STRATEGIES)
@pytest.mark.parametrize("weight", [0, 1, 2])
def test_weights_and_strategies(strategy: str, weight: int) -> None:
    expected = [
        f"warning pools.p.servers[0].weight: the strategy {strategy} ignores weights"
        for _ in range(weight > 1 and strategy in checks.WEIGHTLESS)
    ] + ["warning pools.p.servers: no server gets traffic: every weight is 0"] * (weight == 0)
    if strategy == "first":
        expected.insert(0, FIRST_WITHOUT_LIMIT)
    servers = f"servers: [{{address: 'a:1-3', weight: {weight}}}]"
    assert about_pool(servers, f"strategy: {strategy}") == expected
    assert about_pool(servers, f"strategy: {{name: {strategy}}}") == expected


@pytest.mark.parametrize("strategy", [name for name in BUILT_IN_STRATEGIES if name not in ("consistent_hash", "first")])
def test_built_in_strategies_take_no_options(strategy: str) -> None:
    assert about_pool(f"strategy: {{name: {strategy}, seed: 5, bias: 1}}") == [
        f"pools.p.strategy.{name}: unknown option; {strategy} takes none" for name in ("seed", "bias")
    ]


@pytest.mark.parametrize("python", ["module:Class", "a.b.c:Class", "gpu.py:Class", "/etc/lb/gpu.py:Class", "a:b:Class"])
def test_a_class_of_ones_own_takes_any_option(python: str) -> None:
    assert about_pool(f"strategy: {{python: '{python}', seed: 5}}") == []


@pytest.mark.parametrize("python", ["Class", ":Class", "module:", "module:1x", "module:a.b", "module:Class()"])
def test_a_class_that_cannot_be_found_by_its_text(python: str) -> None:
    assert about_pool(f"strategy: {{python: '{python}'}}") == [
        f"pools.p.strategy.python: expected module:Class or file.py:Class, got {python!r}"
    ]


@pytest.mark.parametrize("strategy", ["{}", "{seed: 5}", "{name: random, python: 'a:B'}"])
def test_a_strategy_has_a_name_or_a_class(strategy: str) -> None:
    assert about_pool(f"strategy: {strategy}") == ["pools.p.strategy: needs either `name` or `python`"]


@pytest.mark.usefixtures("plug_in")
def test_an_installed_strategy_takes_any_option() -> None:
    assert about_pool("strategy: coldest_gpu") == []
    assert about_pool("strategy: {name: coldest_gpu, limit: 80}") == []
    assert about_pool("strategy: elsewhere") == ["pools.p.strategy: there is no strategy elsewhere"]


def test_a_strategy_that_no_package_offers() -> None:
    assert about_pool("strategy: coldest_gpu") == ["pools.p.strategy: there is no strategy coldest_gpu"]


@pytest.mark.usefixtures("plug_in")
def test_strategies_are_suggested_if_they_can_be_had() -> None:
    def hint(name: str) -> tuple[str, str]:
        pools = f"pools:\n  p:\n    servers: ['a:1']\n    strategy: {{name: {name}}}\n"
        (problem,) = checked(LISTENERS + pools).problems
        return problem.path, problem.suggestion

    assert hint("Round-Robbin") == ("pools.p.strategy.name", "did you mean round_robin?")
    assert hint("coldest_cpu") == ("pools.p.strategy.name", "did you mean coldest_gpu?")
    listed = hint("zzz")[1].removeprefix("strategies: ").split(", ")
    assert listed == [*BUILT_IN_STRATEGIES, "coldest_gpu"]


@pytest.mark.parametrize(
    "key", ["method: GET", "path: /x", "host: a", "headers: {X-A: b}", "body: x", "expect: {status: 200}"]
)
def test_keys_of_an_http_check_in_a_tcp_check(key: str) -> None:
    name = "expect.status" if key.startswith("expect") else key.partition(":")[0]
    assert about_pool(f"health_check: {{type: tcp, {key}}}") == [
        f"pools.p.health_check.{name}: belongs to an HTTP check"
    ]
    for kind in ("type: http, ", ""):
        assert about_pool(f"health_check: {{{kind}{key}}}") == []


def test_keys_of_a_tcp_check_in_an_http_check() -> None:
    assert about_pool("health_check: {type: http, send: x}") == ["pools.p.health_check.send: belongs to a TCP check"]
    assert about_pool("health_check: {type: http, expect: OK}") == [
        "pools.p.health_check.expect: a text belongs to a TCP check"
    ]
    assert about_pool("health_check: {type: tcp, send: x, expect: OK}") == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("timeout: 2s", []),
        ("interval: 2s", []),
        (
            "timeout: 2.5s",
            ["warning pools.p.health_check.timeout: the timeout (2.5s) is longer than the interval (2s)"],
        ),
        ("interval: 1s", ["warning pools.p.health_check.interval: the timeout (2s) is longer than the interval (1s)"]),
        (
            "interval: 1s, timeout: 3s",
            ["warning pools.p.health_check.timeout: the timeout (3s) is longer than the interval (1s)"],
        ),
    ],
)
def test_a_check_ends_before_the_next_begins(written: str, expected: list[str]) -> None:
    assert about_pool(f"health_check: {{{written}}}") == expected


@pytest.mark.parametrize(("delay", "warnings"), [("5s", 0), ("6s", 1)])
def test_the_delay_is_part_of_the_grace(delay: str, warnings: int) -> None:
    problems = checked(f"shutdown: {{delay: {delay}, grace: 5s}}\n" + LISTENERS + POOLS).problems
    assert [(problem.path, problem.is_warning) for problem in problems] == [("shutdown.delay", True)] * warnings


def test_header_rules_of_a_pool_and_of_a_route_are_checked() -> None:
    headers = "headers: {request: {remove: [Host]}}"
    complaint = "headers.request.remove[0]: a request cannot be without Host"
    assert about_pool(headers) == [f"pools.p.{complaint}"]
    routes = f"listeners: [{{bind: ':1', routes: [{{pool: p, {headers}}}]}}]\n"
    assert said(routes + POOLS) == [f"listeners[0].routes[0].{complaint}"]


def test_binds_are_checked() -> None:
    assert said("listeners: [{bind: ':1', pool: p}, {bind: ':1', pool: p}]\n" + POOLS) == [
        "listeners[1].bind: 0.0.0.0:1 is bound by listeners[0].bind too"
    ]
