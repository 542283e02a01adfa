"""/metrics of a pool of 200 servers: lbproxy's own text against the same rows through prometheus_client."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from benchmarks.micro.timing import Piece
from lbproxy.control.metrics import Exposition, Registry
from lbproxy.telemetry.slots import SERVER, Row, Slots

N_SERVERS = 200


class _Rows(Collector):
    """The SERVER rows as the client library's families."""

    def __init__(self, rows: list[tuple[tuple[str, str], Row]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        for family in SERVER.families:
            name, first = f"lbproxy_{family.name}", SERVER.offset[family.name]
            if family.buckets:
                histogram = HistogramMetricFamily(name, family.help, labels=SERVER.row_labels)
                edges = [*map(str, family.buckets), "+Inf"]
                for labels, row in self._rows:
                    counts = itertools.accumulate(row[first : first + len(edges)])
                    total_s = row[first + len(edges)] / 1e9
                    histogram.add_metric(labels, list(zip(edges, counts, strict=True)), total_s)
                yield histogram
                continue
            names = (*SERVER.row_labels, *(label for label, _ in family.labels))
            counter = CounterMetricFamily(name, family.help, labels=names)
            for labels, row in self._rows:
                for offset, values in enumerate(itertools.product(*(allowed for _, allowed in family.labels))):
                    counter.add_metric((*labels, *values), row[first + offset])
            yield counter


def pieces() -> Iterator[Piece]:
    slots = Slots()
    rows = [(("predict", f"10.0.0.{number}:5000"), slots.allocate(SERVER)) for number in range(N_SERVERS)]
    registry = Registry("benchmark")
    for labels, row in rows:
        registry.add(SERVER, labels, row)
    exposition = Exposition(registry)
    client = CollectorRegistry(auto_describe=False)
    client.register(_Rows(rows))
    yield Piece(f"metrics of {N_SERVERS} servers: lbproxy, text", exposition.render)
    yield Piece(f"metrics of {N_SERVERS} servers: lbproxy, OpenMetrics", lambda: exposition.render(is_openmetrics=True))
    yield Piece(f"metrics of {N_SERVERS} servers: prometheus_client, text", lambda: generate_latest(client))
