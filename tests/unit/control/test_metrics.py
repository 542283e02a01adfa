import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lbproxy.address import parse_address
from lbproxy.control.metrics import (
    LAYOUTS,
    PER_PROCESS,
    READINGS,
    WORKER_READINGS,
    Exposition,
    Registry,
    wants_openmetrics,
)
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.request_key import read_key
from lbproxy.telemetry.slots import (
    DURATION_BUCKETS,
    LIMIT,
    LISTENER,
    POOL,
    PROCESS,
    QUEUE_BUCKETS,
    ROUTE,
    SERVER,
    TRAFFIC,
    Slots,
    observe,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class First:
    hash_on = ""

    def rebuild(self, servers: Sequence[Server]) -> None:
        pass

    def pick(self, eligible: Sequence[Server], ctx: PickContext, now: float) -> Server:
        return eligible[0]


def make_pool(n_servers: int, name: str = "predict") -> Pool:
    servers = [
        Server(f"127.0.0.1:{port}", parse_address(f"127.0.0.1:{port}")) for port in range(5001, 5001 + n_servers)
    ]
    return Pool(name, servers, First(), First())


def make_registry(pool: Pool, slots: Slots) -> Registry:
    registry = Registry("1.2.3", {pool.name: pool})
    for server in pool.servers:
        registry.add(SERVER, (pool.name, server.name), slots.allocate(SERVER))
    registry.add(POOL, (pool.name,), slots.allocate(POOL))
    registry.add(LISTENER, ("front",), slots.allocate(LISTENER))
    registry.add(TRAFFIC, ("front", pool.name), slots.allocate(TRAFFIC))
    registry.add(ROUTE, ("front", "chat"), slots.allocate(ROUTE))
    registry.add(LIMIT, ("each",), slots.allocate(LIMIT))
    registry.add(PROCESS, (), slots.allocate(PROCESS))
    registry.readers["client_connections"] = lambda: [(("front",), 3)]
    registry.readers["split_share_ratio"] = lambda: [(("front", "chat", pool.name), 0.95)]
    registry.readers["h2_streams"] = lambda: [(("front",), 2)]
    registry.readers["upstream_connections"] = lambda: [
        ((pool.name, server.name, state), 1) for server in pool.servers for state in ("active", "idle")
    ]
    registry.readers["tls_certificate_expiry_timestamp_seconds"] = lambda: [(("front", "a.pem"), 2e9)]
    registry.readers["discovery_last_success_timestamp_seconds"] = lambda: [((pool.name, "dns:model"), 1e9)]
    registry.readers["discovery_errors_total"] = lambda: [((pool.name, "dns:model"), 2)]
    registry.readers["buffered_bytes"] = lambda: [((), 1000)]
    registry.readers["config_last_reload_successful"] = lambda: [((), 1)]
    registry.readers["config_last_reload_success_timestamp_seconds"] = lambda: [((), 2e9)]
    registry.readers["buffered_limit_bytes"] = lambda: [((), 2000)]
    return registry


def samples(registry: Registry) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(Exposition(registry).render().decode())
        for sample in family.samples
    }


def one(found: Samples, name: str, **labels: str) -> float:
    return found[(f"lbproxy_{name}", frozenset(labels.items()))]


def test_every_family_is_there_from_the_start() -> None:
    pool = make_pool(1)
    pool.queue = WaitQueue(rules=FairRules(read_key("client_ip"), "x-p", ("high", "low")))
    registry = make_registry(pool, Slots())
    names = {name for name, _ in samples(registry)}
    for layout in LAYOUTS:
        for family in layout.families:
            assert f"lbproxy_{family.name}{'_count' if family.buckets else ''}" in names
    for reading in READINGS:
        assert f"lbproxy_{reading.name}" in names
    assert "process_open_fds" in names
    assert not any(name.endswith("_created") for name in names)


def test_counters_start_at_zero_and_follow_their_cells() -> None:
    registry = make_registry(make_pool(1), Slots())
    labels = {"pool": "predict", "server": "127.0.0.1:5001", "code": "5xx"}
    assert one(samples(registry), "server_requests_total", **labels) == 0
    row = registry.row(SERVER, ("predict", "127.0.0.1:5001"))
    assert row is not None
    row[SERVER.column("server_requests_total", "5xx")] += 7
    assert one(samples(registry), "server_requests_total", **labels) == 7
    labels["code"] = "2xx"
    assert one(samples(registry), "server_requests_total", **labels) == 0


def test_a_histogram_is_cumulative_and_in_seconds() -> None:
    registry = make_registry(make_pool(1), Slots())
    row = registry.row(POOL, ("predict",))
    assert row is not None
    for value_s in (0.0005, 0.3, 0.3, 1000.0):
        observe(row, POOL.offset["request_duration_seconds"], DURATION_BUCKETS, value_s)
    found = samples(registry)
    buckets = {
        le: one(found, "request_duration_seconds_bucket", pool="predict", le=le)
        for le in ("0.001", "0.25", "0.5", "300.0", "+Inf")
    }
    assert buckets == {"0.001": 1, "0.25": 1, "0.5": 3, "300.0": 3, "+Inf": 4}
    assert one(found, "request_duration_seconds_sum", pool="predict") == pytest.approx(1000.6005)
    assert one(found, "request_duration_seconds_count", pool="predict") == 4


def test_rows_of_several_workers_are_added() -> None:
    slots = Slots()
    registry = make_registry(make_pool(1), slots)
    other = slots.allocate(LISTENER)
    registry.add(LISTENER, ("front",), other)
    own = registry.row(LISTENER, ("front",))
    assert own is not None
    column = LISTENER.column("client_connections_total")
    own[column], other[column] = 2, 40
    assert one(samples(registry), "client_connections_total", listener="front") == 42


def test_the_series_of_a_server_go_with_it() -> None:
    pool = make_pool(2)
    registry = make_registry(pool, Slots())
    gone = pool.servers[1]
    pool.remove(gone)
    row = registry.row(SERVER, ("predict", gone.name))
    assert row is not None
    registry.remove(SERVER, ("predict", gone.name), row)
    assert registry.row(SERVER, ("predict", gone.name)) is None
    del registry.readers["upstream_connections"]
    assert not [key for key in samples(registry) if ("server", gone.name) in key[1]]
    registry.remove(SERVER, ("predict", gone.name), row)  # a second time is harmless


def test_states_are_one_hot_and_counted_per_pool() -> None:
    pool = make_pool(3)
    registry = make_registry(pool, Slots())
    pool.set_health(pool.servers[0], Health.DOWN, "refused", "connection refused", 1.0)
    found = samples(registry)
    server = {"pool": "predict", "server": "127.0.0.1:5001"}
    hot = [
        dict(labels)["state"]
        for (name, labels), value in found.items()
        if value and name == "lbproxy_server_state" and ("server", "127.0.0.1:5001") in labels
    ]
    assert hot == ["down"]
    assert one(found, "server_up", **server) == 0
    assert one(found, "pool_servers", pool="predict", state="down") == 1
    assert one(found, "pool_servers", pool="predict", state="up") == 2


def test_a_server_is_not_up_just_because_the_pool_fails_open() -> None:
    pool = make_pool(1)
    pool.set_health(pool.servers[0], Health.UP, "", "", 0.5)
    pool.set_health(pool.servers[0], Health.DOWN, "timeout", "no answer", 1.0)
    assert pool.eligible()
    assert one(samples(make_registry(pool, Slots())), "server_up", pool="predict", server="127.0.0.1:5001") == 0


def test_a_name_without_an_address_is_counted() -> None:
    pool = make_pool(2)
    registry = make_registry(pool, Slots())
    assert one(samples(registry), "pool_servers", pool="predict", state="unresolved") == 0
    name = Name("gone.example", 1.0)
    name.servers = ("gone.example:1", "gone.example:2")
    pool.names.append(name)
    assert one(samples(registry), "pool_servers", pool="predict", state="unresolved") == 2
    name.answered(1, 2.0)
    assert one(samples(registry), "pool_servers", pool="predict", state="unresolved") == 0


def test_saturation_is_work_over_slots() -> None:
    pool = make_pool(2)
    registry = make_registry(pool, Slots())
    assert one(samples(registry), "pool_saturation_ratio", pool="predict") == 0
    for server in pool.servers:
        server.max_inflight = 4
        server.inflight = 4
    registry.readers["queue_depth"] = lambda: [(("predict",), 8)]
    assert one(samples(registry), "pool_saturation_ratio", pool="predict") == 2
    assert one(samples(registry), "queue_depth", pool="predict") == 8


def test_what_does_not_exist_yet_has_no_series() -> None:
    """A series at its good value says that something is watched."""
    text = Exposition(make_registry(make_pool(1), Slots())).render().decode()
    for word in ("worker", "read_paused"):
        assert word not in text


def test_several_workers_come_with_their_series() -> None:
    registry = make_registry(make_pool(1), Slots())
    registry.readers["worker_up"] = lambda: [(("1",), 1), (("2",), 0)]
    registry.readers["worker_restarts_total"] = lambda: [(("1",), 0), (("2",), 3)]
    found = samples(registry)
    assert one(found, "worker_up", worker="2") == 0
    assert one(found, "worker_restarts_total", worker="2") == 3


def test_what_is_of_a_process_has_its_name_where_there_are_several() -> None:
    registry = make_registry(make_pool(1), Slots())
    late, quick = [0] * PROCESS.width, [0] * PROCESS.width
    observe(late, PROCESS.offset["loop_lag_seconds"], QUEUE_BUCKETS, 2.0)
    registry.processes = lambda: [("1", late), ("controller", quick)]
    found = samples(registry)
    assert one(found, "loop_lag_seconds_bucket", worker="1", le="+Inf") == 1
    assert one(found, "loop_lag_seconds_bucket", worker="1", le="1.0") == 0
    assert one(found, "loop_lag_seconds_sum", worker="1") == 2.0
    assert one(found, "loop_lag_seconds_count", worker="controller") == 0
    assert "lbproxy_loop_lag_seconds_count " not in Exposition(registry).render().decode()


def test_label_values_are_escaped() -> None:
    name = 'a"b\\c%d'
    registry = make_registry(make_pool(1, name), Slots())
    assert one(samples(registry), "queue_depth", pool=name) == 0
    assert one(samples(registry), "fail_open_total", pool=name) == 0


def test_openmetrics_is_valid_and_says_the_same() -> None:
    registry = make_registry(make_pool(2), Slots())
    text = Exposition(registry).render(is_openmetrics=True).decode()
    assert text.endswith("# EOF\n")
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name.startswith("lbproxy_")
    }
    assert found == {key: value for key, value in samples(registry).items() if key[0].startswith("lbproxy_")}


def test_each_family_appears_once_and_its_samples_together() -> None:
    text = Exposition(make_registry(make_pool(2), Slots())).render().decode()
    types = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(types) == len(set(types))


def families(text: bytes) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))


def test_who_asks_for_names_gets_these_families_whole() -> None:
    exposition = Exposition(make_registry(make_pool(2), Slots()))
    whole = exposition.render().decode()
    names = ("lbproxy_server_up", "lbproxy_rejected_total", "lbproxy_request_duration_seconds_count", "lbproxy_no_such")
    found = exposition.render(names=names)
    assert families(found) == {
        "lbproxy_server_up", "lbproxy_rejected_total", "lbproxy_request_duration_seconds"
    }  # fmt: skip
    expected = [
        line for line in whole.splitlines() if re.search(r"lbproxy_(server_up|rejected_total|request_dur)", line)
    ]
    assert found.decode().splitlines() == expected
    assert "lbproxy_rejected_total{" in found.decode()


@pytest.mark.parametrize("is_openmetrics", [False, True])
def test_names_may_be_of_the_process_or_of_nothing(is_openmetrics: bool) -> None:
    exposition = Exposition(make_registry(make_pool(1), Slots()))
    end = b"# EOF\n" if is_openmetrics else b""
    found = exposition.render(is_openmetrics=is_openmetrics, names=["process_open_fds"])
    assert b"\nprocess_open_fds " in found and b"lbproxy_" not in found and found.endswith(end)
    assert exposition.render(is_openmetrics=is_openmetrics, names=["odd"]) == end
    assert exposition.render(is_openmetrics=is_openmetrics, names=["lbproxy_server_up"]).endswith(end)


def test_every_series_has_a_name_by_which_its_family_is_found() -> None:
    registry = make_registry(make_pool(1), Slots())
    registry.readers["worker_up"] = lambda: [(("1",), 1)]
    exposition = Exposition(registry)
    names = set(re.findall(r"^(?:# TYPE )?([a-z_0-9]+)", exposition.render().decode(), re.MULTILINE))
    assert len(names) > 80
    for name in names:
        found = exposition.render(names=[name])
        assert re.search(rf"^(# TYPE )?{name}\b", found.decode(), re.MULTILINE), name
        if not name.startswith("process_"):
            assert len(families(found)) == 1


def test_what_did_not_change_is_the_same_text_and_what_changed_is_not() -> None:
    registry = make_registry(make_pool(1), Slots())
    exposition = Exposition(registry)
    row = registry.row(LISTENER, ("front",))
    assert row is not None
    column = LISTENER.column("client_connections_total")
    name = ["lbproxy_client_connections_total"]
    for count in (1, 1, 2):
        row[column] = count
        for is_openmetrics in (False, True):
            text = exposition.render(is_openmetrics=is_openmetrics, names=name).decode()
            assert f'lbproxy_client_connections_total{{listener="front"}} {count}\n' in text
    registry.count_elsewhere(LISTENER, ("front",), [40] * LISTENER.width)
    assert 'lbproxy_client_connections_total{listener="front"} 42\n' in exposition.render(names=name).decode()
    registry.readers["client_connections"] = lambda: [(("front",), 4)]
    assert 'lbproxy_client_connections{listener="front"} 4\n' in exposition.render().decode()
    registry.readers["client_connections"] = lambda: [(("front",), 5)]
    assert 'lbproxy_client_connections{listener="front"} 5\n' in exposition.render().decode()


def test_two_hundred_servers_are_rendered_within_50_ms() -> None:
    exposition = Exposition(make_registry(make_pool(200), Slots()))
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()  # others on the machine must not count
        exposition.render()
        best = min(best, time.thread_time() - started)
    assert best < 0.05


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.6", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=often", False),
    ],
)
def test_the_format_follows_accept(accept: str, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected


# --- the pages and files that name metrics --------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
Described = dict[str, tuple[str, tuple[str, ...]]]


def described() -> Described:
    """Type and labels of every family that exists."""
    found: Described = {f"lbproxy_{item.name}": (item.kind, item.labels) for item in (*READINGS, *WORKER_READINGS)}
    for layout in LAYOUTS:
        for family in layout.families:
            kind = "histogram" if family.buckets else "counter"
            own = ("worker",) if family.name in PER_PROCESS else layout.row_labels
            found[f"lbproxy_{family.name}"] = (kind, (*own, *(label for label, _ in family.labels)))
    return found


def test_the_manual_describes_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(lbproxy_\w+)` \| (\w+) \| (.*?) \| \S.* \|$", page, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    assert {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == described()


@pytest.mark.parametrize(
    "path",
    ["docs/metrics.md", "deploy/grafana/lbproxy.json", "deploy/prometheus/alerts.yml"],
    ids=lambda path: Path(path).name,
)
def test_only_metrics_that_exist_are_used(path: str) -> None:
    known = described()
    series = set(known) | {
        f"{name}_{part}"
        for name, (kind, _) in known.items()
        if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    text = (ROOT / path).read_text()
    used = set(re.findall(r"\blbproxy_[a-z0-9_]*[a-z0-9]", text))
    assert used
    assert used <= series


def test_every_panel_selects_by_labels_that_its_metric_has() -> None:
    known = described()
    board = json.loads((ROOT / "deploy" / "grafana" / "lbproxy.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 20
    for expression in expressions:
        for name, selector in re.findall(r"(lbproxy_\w+)\{(.*?)\}", expression):
            labels = set(re.findall(r"(\w+)(?==|!)", selector)) - {"instance", "job"}
            family = next(key for key in known if name in (key, f"{key}_bucket"))
            assert labels <= set(known[family][1]), (name, labels)


def test_who_waits_is_counted_by_class_and_key_where_turns_go_by_these() -> None:
    pool = make_pool(1)
    pool.queue = WaitQueue(rules=FairRules(read_key("client_ip"), "x-p", ("high", "low")))
    for client in ("a", "a", "b"):
        pool.queue.push(Ticket(PickContext(client), enqueued_at=0.0), 0.0)
    found = samples(make_registry(pool, Slots()))
    assert one(found, "queue_class_depth", pool="predict", **{"class": "low"}) == 3
    assert one(found, "queue_class_depth", pool="predict", **{"class": "high"}) == 0
    assert one(found, "queue_keys", pool="predict") == 2
    text = Exposition(make_registry(make_pool(1), Slots())).render().decode()
    assert "queue_class_depth{" not in text and "queue_keys{" not in text
