"""What /metrics says, made when it is asked for.

Counters and histograms are rows of cells (telemetry/slots.py), gauges are read from the objects they describe. The text
is written here rather than by prometheus_client: for 200 servers (13,000 series) that took 62 ms as text and 97 ms as
OpenMetrics, all of it on the event loop. What of a row did not change since the last look is not written anew, and most
does not: of a thousand cells that can be counted in, a server that does well uses ten. The client library still
supplies process_*.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from lbproxy.domain.pool import Pool
from lbproxy.telemetry.slots import (
    LIMIT,
    LISTENER,
    POOL,
    PROCESS,
    ROUTE,
    SERVER,
    SERVER_STATES,
    TRAFFIC,
    UNRESOLVED,
    Family,
    Layout,
    Row,
)

PREFIX = "lbproxy_"
LAYOUTS = (SERVER, POOL, LISTENER, TRAFFIC, ROUTE, LIMIT, PROCESS)
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Reader = Callable[[], Iterable[tuple[tuple[str, ...], float]]]
"""Yields (label values, value) of one family."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A family whose values are read at scrape time."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"


READINGS = (
    Reading("build_info", "Always 1; the version is in the label.", ("version",)),
    Reading(
        "server_up", "1 if the server may take new requests; fail-open does not make a server up.", ("pool", "server")
    ),
    Reading("server_state", "1 for the state that the server is in, 0 for the others.", ("pool", "server", "state")),
    Reading("server_inflight", "Requests (TCP: connections) at the server now.", ("pool", "server")),
    Reading("server_weight", "Weight of the server.", ("pool", "server")),
    Reading(
        "pool_servers",
        "Servers of the pool by state; unresolved: the name of a configured one has no address yet.",
        ("pool", "state"),
    ),
    Reading("pool_saturation_ratio", "Requests in flight and queued, over slots; 0 without max_inflight.", ("pool",)),
    Reading("queue_depth", "Requests that wait for a server.", ("pool",)),
    Reading(
        "queue_class_depth", "Requests of the class that wait, where `queue.priority` has such.", ("pool", "class")
    ),
    Reading("queue_keys", "Keys of which requests wait, with `queue.fair_by`, each once.", ("pool",)),
    Reading(
        "split_share_ratio",
        "Share of the requests of a route with a split that the pool gets now, 0 to 1.",
        ("listener", "route", "pool"),
    ),
    Reading("client_connections", "Client connections open now.", ("listener",)),
    Reading("h2_streams", "Requests on HTTP/2 connections of clients now.", ("listener",)),
    Reading("upstream_connections", "Connections to the server now, in use or kept idle.", ("pool", "server", "state")),
    Reading("config_last_reload_successful", "1 if the last reload, or the start, is in force; 0 if it failed."),
    Reading("config_last_reload_success_timestamp_seconds", "Unix time at which the config in force was put in place."),
    Reading(
        "discovery_last_success_timestamp_seconds",
        "Unix time at which a source of servers was last looked at with success; 0 before.",
        ("pool", "source"),
    ),
    Reading(
        "discovery_errors_total",
        "Looks at a source of servers that failed; the last good answer stays in use.",
        ("pool", "source"),
    ),
    Reading("buffered_bytes", "Bytes of requests and answers held in memory now."),
    Reading("buffered_limit_bytes", "limits.buffered_bytes: from 95 % of it on new requests are refused."),
    Reading(
        "tls_certificate_expiry_timestamp_seconds",
        "Unix time at which the certificate that clients are shown expires.",
        ("listener", "certificate"),
    ),
)
WORKER_READINGS = (
    Reading("worker_up", "1 if the worker process serves.", ("worker",)),
    Reading("worker_restarts_total", "Times that the worker died and another one took its place.", ("worker",)),
    Reading("worker_cpu_seconds_total", "CPU time of the worker process, from 0 when it is replaced.", ("worker",)),
    Reading(
        "worker_resident_memory_bytes",
        "Memory of the worker process; what it shares with the others counts in each.",
        ("worker",),
    ),
)
"""Only where there are several workers."""
PER_PROCESS: Final = frozenset({"loop_lag_seconds"})
"""Of PROCESS: where there are several, each process has its own, with the label `worker`."""
_GAUGES = frozenset(reading.name for reading in READINGS if reading.kind == "gauge")
_FAMILIES: Final = {PREFIX + reading.name: reading.name for reading in (*READINGS, *WORKER_READINGS)} | {
    f"{PREFIX}{family.name}{suffix}": family.name
    for layout in LAYOUTS
    for family in layout.families
    for suffix in (("", "_bucket", "_sum", "_count") if family.buckets else ("",))
}
"""By their names on the page, and by those of their series."""
_OF_PROCESS: Final = "process_"
_OWN: Final = "\0"  # stands in a shape where a row's own labels come
_NOTHING: Final[list[int]] = []  # equals no cells of a family: each has one at least


class _Entry:
    """All rows of one thing, and the text that was made of them last, per family. elsewhere: what other processes have
    counted of it; empty if there are none."""

    __slots__ = ("_labels", "_seen", "_texts", "elsewhere", "rows")

    def __init__(self, layout: Layout, labels: tuple[str, ...], row: Row) -> None:
        self.rows = [row]
        self.elsewhere: Row = []
        self._labels = _pairs(layout.row_labels, labels)
        self._seen: list[list[int]] = [_NOTHING] * len(layout.families)
        self._texts = [b""] * len(layout.families)

    def sums(self, first: int, end: int) -> list[int]:
        """Some cells of all rows, added up."""
        return _sum_rows([*self.rows, self.elsewhere] if self.elsewhere else self.rows, first, end)

    def text(self, index: int, family: Family, first: int) -> bytes:
        """The samples of one family. index: its place in the layout."""
        cells = self.sums(first, first + family.width)
        if cells != self._seen[index]:
            self._texts[index] = _samples(family, self._labels, cells)
            self._seen[index] = cells
        return self._texts[index]


@dataclass(slots=True)
class Registry:
    """Everything that /metrics reads. The composition root fills it; rows come and go with what they describe.

    pools: the live pools by name. readers: READINGS by name, for those which the pools cannot answer
    (`client_connections`, `h2_streams`, `upstream_connections`, `queue_depth`). look: what other processes counted is
    asked for. processes: where there are several, the PROCESS row of each and its name, for PER_PROCESS.
    """

    version: str
    pools: Mapping[str, Pool] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    look: Callable[[], None] = lambda: None
    processes: Callable[[], Iterable[tuple[str, Sequence[int]]]] | None = None
    _entries: dict[Layout, dict[tuple[str, ...], _Entry]] = field(
        default_factory=lambda: {layout: {} for layout in LAYOUTS}
    )

    def add(self, layout: Layout, labels: tuple[str, ...], row: Row) -> None:
        """Show a row. A second row with the same labels is added to the first."""
        entry = self._entries[layout].get(labels)
        if entry is None:
            self._entries[layout][labels] = _Entry(layout, labels, row)
        else:
            entry.rows.append(row)

    def remove(self, layout: Layout, labels: tuple[str, ...], row: Row) -> None:
        """The thing that counted in `row` is gone; its series go with the last row of these labels."""
        entry = self._entries[layout].get(labels)
        if entry is not None:
            entry.rows = [other for other in entry.rows if other is not row]
            if not entry.rows:
                del self._entries[layout][labels]

    def retire(self, layout: Layout, labels: tuple[str, ...], row: Row) -> None:
        """The same, but where something else goes by these labels now, it goes on with the counts: a counter that
        falls is taken for one that began anew, and what is left for what has just happened."""
        entry = self._entries[layout].get(labels)
        self.remove(layout, labels, row)
        if entry is not None and entry.rows:
            entry.rows[0][:] = [mine + its for mine, its in zip(entry.rows[0], row, strict=True)]

    def count_elsewhere(self, layout: Layout, labels: tuple[str, ...], row: Row) -> None:
        """What other processes have counted of something, up to now."""
        entry = self._entries[layout].get(labels)
        if entry is not None:
            entry.elsewhere = row

    def row(self, layout: Layout, labels: tuple[str, ...]) -> Row | None:
        """The first row under these labels."""
        entry = self._entries[layout].get(labels)
        return entry.rows[0] if entry is not None else None

    def entries(self, layout: Layout) -> Iterable[_Entry]:
        return self._entries[layout].values()

    def labels(self, layout: Layout) -> Iterable[tuple[str, ...]]:
        """Those of every row of this kind."""
        return self._entries[layout].keys()

    def cells(self, layout: Layout, labels: tuple[str, ...], first: int, end: int) -> list[int]:
        """Some cells of the rows with these labels, added up; zeroes if there is none."""
        entry = self._entries[layout].get(labels)
        return entry.sums(first, end) if entry is not None else [0] * (end - first)


class Exposition:
    """Renders a Registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        self._defaults = _pool_readers(registry) | _own_readers(registry)
        self._read: dict[str, tuple[list[tuple[tuple[str, ...], float]], bytes]] = {}

    def render(self, *, is_openmetrics: bool = False, names: Collection[str] = ()) -> bytes:
        """The page, on the caller's thread: some 10 us per server, 60 where everything of it changed.

        names: of families, or of series of them, which are wanted; without any all of them are. What does not exist is
        not missed.
        """
        wanted = {_family_of(name) for name in names} or None
        out: list[bytes] = []
        self._registry.look()
        for layout in LAYOUTS:
            for index, family in enumerate(layout.families):
                if wanted is not None and family.name not in wanted:
                    continue
                out.append(
                    _head(family.name, "histogram" if family.buckets else "counter", family.help, is_openmetrics)
                )
                first = layout.offset[family.name]
                if family.name in PER_PROCESS and self._registry.processes is not None:
                    for name, row in self._registry.processes():
                        own = _pairs(("worker",), (name,))
                        out.append(_samples(family, own, row[first : first + family.width]))
                    continue
                out.extend([entry.text(index, family, first) for entry in self._registry.entries(layout)])
        for reading in (*READINGS, *(item for item in WORKER_READINGS if item.name in self._registry.readers)):
            if wanted is None or reading.name in wanted:
                out.append(_head(reading.name, reading.kind, reading.help, is_openmetrics))
                out.append(self._reading_text(reading))
        if wanted is None or _OF_PROCESS in wanted:
            out.append(self._process_text(is_openmetrics))
        elif is_openmetrics:
            out.append(b"# EOF\n")
        return b"".join(out)

    def _reading_text(self, reading: Reading) -> bytes:
        read = self._registry.readers.get(reading.name) or self._defaults.get(reading.name)
        values = [*read()] if read is not None else []
        seen = self._read.get(reading.name)
        if seen is None or seen[0] != values:
            samples = [f"{_labels(reading.labels, labels)} {_number(value)}" for labels, value in values]
            text = "".join([f"{PREFIX}{reading.name}{sample}\n" for sample in samples]).encode()
            seen = self._read[reading.name] = values, text
        return seen[1]

    def _process_text(self, is_openmetrics: bool) -> bytes:
        if is_openmetrics:
            return bytes(openmetrics.generate_latest(self._process))  # type: ignore[no-untyped-call]  # with "# EOF"
        return generate_latest(self._process)


def wants_openmetrics(accept: str) -> bool:
    """True if the Accept field prefers OpenMetrics, or likes it as much as the plain text format."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        if media not in quality:
            continue
        q = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            quality[media] = max(quality[media], float(q))
        except ValueError:
            continue
    return quality["application/openmetrics-text"] > 0 and (
        quality["application/openmetrics-text"] >= quality["text/plain"]
    )


# --- text -----------------------------------------------------------------------------------------------------------


def _family_of(name: str) -> str:
    """Which family a name means that somebody asks for; of the process, and what nobody knows, in one word each."""
    if name.startswith(_OF_PROCESS):
        return _OF_PROCESS
    return _FAMILIES.get(name, "")


@cache
def _head(name: str, kind: str, text: str, is_openmetrics: bool) -> bytes:
    if is_openmetrics and kind == "counter":
        # OpenMetrics 1.0: the suffix belongs to the sample, not to the family. Where a gauge has the name without it
        # (client_connections), the two would clash, and the counter goes without a type.
        base = name.removesuffix("_total")
        name, kind = (name, "unknown") if base in _GAUGES else (base, kind)
    return f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} {kind}\n".encode()


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    return _braced(_pairs(names, values))


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _pairs(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))


def _escape(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    return repr(value)


def _samples(family: Family, own: str, cells: Sequence[int]) -> bytes:
    """All samples of a family, of the cells in their order. own: labels of the row."""
    shape = _shape(family, has_own=bool(own))
    if own:
        shape = shape.replace(_OWN, own.replace("%", "%%"))
    return (shape % tuple(_cumulate(cells) if family.buckets else cells)).encode()


@cache
def _shape(family: Family, *, has_own: bool) -> str:
    """The lines of a family, the same for all rows, with a place for a row's own labels and for each value."""
    name = PREFIX + family.name
    if family.buckets:
        edges = [*(str(float(edge)) for edge in family.buckets), "+Inf"]
        samples = [(f"{name}_bucket", _pairs(("le",), (edge,)), "%d") for edge in edges]
        samples += [(f"{name}_sum", "", "%r"), (f"{name}_count", "", "%d")]
    else:
        names = [label for label, _ in family.labels]
        samples = [
            (name, _pairs(names, values), "%d") for values in product(*(allowed for _, allowed in family.labels))
        ]
    own = [_OWN] if has_own else []
    return "".join(
        [f"{start}{_braced(','.join([*own, *filter(None, [pairs])]))} {value}\n" for start, pairs, value in samples]
    )


def _sum_rows(rows: list[Row], first: int, end: int) -> list[int]:
    total = rows[0][first:end]
    for row in rows[1:]:
        total = [*map(operator.add, total, row[first:end])]
    return total


def _cumulate(cells: Sequence[int]) -> list[float]:
    """Cells of a histogram (one per bucket, +Inf, sum in ns) as cumulative buckets, sum in seconds, count."""
    *buckets, total_ns = cells
    out: list[float] = []
    count = 0
    for cell in buckets:
        count += cell
        out.append(count)
    return [*out, total_ns / 1e9, count]


# --- readings -------------------------------------------------------------------------------------------------------


def _pool_readers(registry: Registry) -> dict[str, Reader]:
    pools = registry.pools

    def usable() -> Iterable[tuple[tuple[str, ...], float]]:
        for name, pool in pools.items():
            yield from (((name, server.name), int(server.is_usable)) for server in pool.servers)

    def states() -> Iterable[tuple[tuple[str, ...], float]]:
        for name, pool in pools.items():
            for server in pool.servers:
                shown = server.shown
                yield from (((name, server.name, state), int(state == shown)) for state in SERVER_STATES)

    def counts() -> Iterable[tuple[tuple[str, ...], float]]:
        for name, pool in pools.items():
            shown = [server.shown for server in pool.servers]
            yield from (((name, state), shown.count(state)) for state in SERVER_STATES)
            yield (name, UNRESOLVED), sum(len(item.servers) for item in pool.names if item.is_unresolved)

    def saturation() -> Iterable[tuple[tuple[str, ...], float]]:
        queued = dict(registry.readers["queue_depth"]()) if "queue_depth" in registry.readers else {}
        for name, pool in pools.items():
            limited = [server for server in pool.servers if server.max_inflight]
            slots = sum(server.max_inflight for server in limited)
            busy = sum(server.inflight for server in limited) + queued.get((name,), 0)
            yield (name,), busy / slots if slots else 0

    def waiting_by_class() -> Iterable[tuple[tuple[str, ...], float]]:
        for name, pool in pools.items():
            if pool.queue is not None:
                yield from (((name, word), n) for word, n in pool.queue.by_class())

    def waiting_keys() -> Iterable[tuple[tuple[str, ...], float]]:
        for name, pool in pools.items():
            if pool.queue is not None and (n_keys := pool.queue.n_keys()) is not None:
                yield (name,), n_keys

    return {
        "server_up": usable,
        "server_state": states,
        "server_inflight": lambda: (((n, s.name), s.inflight) for n, p in pools.items() for s in p.servers),
        "server_weight": lambda: (((n, s.name), s.weight) for n, p in pools.items() for s in p.servers),
        "pool_servers": counts,
        "pool_saturation_ratio": saturation,
        "queue_depth": lambda: (((name,), 0) for name in pools),
        "queue_class_depth": waiting_by_class,
        "queue_keys": waiting_keys,
    }


def _own_readers(registry: Registry) -> dict[str, Reader]:
    return {"build_info": lambda: [((registry.version,), 1)]}
