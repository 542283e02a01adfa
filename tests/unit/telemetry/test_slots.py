"""Counters as cells: no two meanings share one, and a histogram is what Prometheus thinks it is."""

from __future__ import annotations

from itertools import product

import pytest

from lbproxy.telemetry.slots import DURATION_BUCKETS, LISTENER, POOL, PROCESS, SERVER, TRAFFIC, Family, Layout, Slots
from lbproxy.telemetry.slots import observe as observe_

LAYOUTS = {"server": SERVER, "pool": POOL, "listener": LISTENER, "traffic": TRAFFIC, "process": PROCESS}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_label_combination_has_a_cell_of_its_own(layout: Layout) -> None:
    cells: list[int] = []
    for family in layout.families:
        if family.buckets:
            assert family.buckets == tuple(sorted(set(family.buckets)))
            cells += range(layout.offset[family.name], layout.offset[family.name] + family.width)
        else:
            cells += [layout.column(family.name, *values) for values in product(*(item[1] for item in family.labels))]
    assert cells == list(range(layout.width))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_names_are_those_of_a_metric(layout: Layout) -> None:
    for family in layout.families:
        assert family.help.endswith(".")
        assert family.name.endswith("_seconds" if family.buckets else "_total")


def test_unknown_names_and_values_are_refused() -> None:
    with pytest.raises(StopIteration):
        SERVER.column("nothing")
    with pytest.raises(ValueError, match="not in tuple"):
        SERVER.column("server_requests_total", "7xx")
    with pytest.raises(ValueError, match="shorter"):
        TRAFFIC.column("requests_total", "GET")


def test_widths() -> None:
    assert Family("a", "A.").width == 1
    assert Family("a", "A.", (("x", ("1", "2")), ("y", ("3", "4", "5")))).width == 6
    assert Family("a", "A.", (), (1.0, 2.0)).width == 4


def test_rows_are_zero_and_apart() -> None:
    slots = Slots()
    first, second = slots.allocate(POOL), slots.allocate(POOL)
    assert len(first) == POOL.width and not any(first)
    first[3] += 7
    assert first[3] == 7 and not any(second)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        (0.0, 0),
        (0.0005, 0),
        (0.001, 0),  # `le` means at most
        (0.0011, 1),
        (0.3, DURATION_BUCKETS.index(0.5)),
        (300.0, len(DURATION_BUCKETS) - 1),
        (301.0, len(DURATION_BUCKETS)),
    ],
)
def test_a_value_is_counted_in_its_bucket_and_in_the_sum(value: float, bucket: int) -> None:
    row = Slots().allocate(POOL)
    first = POOL.offset["request_duration_seconds"]
    observe_(row, first, DURATION_BUCKETS, value)
    cells = list(row[first : first + len(DURATION_BUCKETS) + 2])
    assert cells.pop() == int(value * 1e9)
    assert [index for index, count in enumerate(cells) if count] == [bucket]


def test_a_clock_that_went_back_takes_nothing_off_the_sum() -> None:
    row = Slots().allocate(POOL)
    observe_(row, 0, DURATION_BUCKETS, -1.0)
    assert (row[0], row[len(DURATION_BUCKETS) + 1]) == (1, 0)
