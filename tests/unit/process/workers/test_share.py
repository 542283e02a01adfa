"""What is there before anybody forks: room for more than the config names, and a seat for each of its servers."""

from __future__ import annotations

import os
import threading

import pytest

from lbproxy.address import Address
from lbproxy.config.loader import load_text
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import CONTROLLER
from lbproxy.domain.shared.orders import write_orders
from lbproxy.domain.shared.plan import HELD
from lbproxy.process.workers import share as share_module
from lbproxy.process.workers.share import (
    LEAST_PLACES,
    MOST_ROWS,
    SPARE_POOLS,
    SPARE_ROWS,
    SPARE_SEATS,
    SPARE_SEATS_FOUND,
    Share,
    room_for,
)
from lbproxy.shared.table import PoolRoom
from lbproxy.telemetry.slots import PROCESS


def share_of(pools: str, n_workers: int = 2) -> Share:
    text = f"listeners: [{{name: in, bind: '127.0.0.1:5000', pool: p}}]\npools:\n  p: {pools}\n"
    return Share(load_text(text, "test.yaml", {}).config, n_workers)


def room(pool: str) -> PoolRoom:
    text = f"listeners: [{{name: in, bind: '127.0.0.1:5000', pool: p}}]\npools:\n  p: {pool}\n"
    return room_for(load_text(text, "test.yaml", {}).config.pools["p"])


def test_room_is_for_more_than_there_is() -> None:
    assert room("{servers: ['127.0.0.1:1', '127.0.0.1:2'], max_inflight: 3, queue: {size: 7}}") == PoolRoom(
        4 + SPARE_SEATS, 2 * (6 + SPARE_SEATS * 3) + SPARE_ROWS, LEAST_PLACES
    )
    assert room("{servers: ['name.example:1'], max_inflight: 9999, queue: {size: 5000}}") == PoolRoom(
        2 + SPARE_SEATS_FOUND, MOST_ROWS, 10_000
    )
    assert room("{servers: ['127.0.0.1:1']}").n_slots == SPARE_ROWS


def test_servers_of_the_config_have_seats_before_anybody_is_there() -> None:
    share = share_of(
        "{servers: ['127.0.0.1:1', {address: '127.0.0.1:2', weight: 3}, 'name.example:3'], max_inflight: 4}"
    )
    books = share.books(share.room_names.find("p"), 1)
    found, gone = books.find_seats()
    assert [(server.name, seat) for server, seat in found] == [("127.0.0.1:1", 0), ("127.0.0.1:2", 1)]
    assert gone == []
    assert len(share.table.plans) == 1 + SPARE_POOLS
    assert len(share.bells) == 3


def test_who_is_buried_leaves_nothing_but_its_counts_and_others_are_woken() -> None:
    share = share_of("{servers: ['127.0.0.1:1'], max_inflight: 1}")
    number = share.room_names.find("p")
    books = share.books(number, 1)
    for server, seat in books.find_seats()[0]:
        books.sat_down(server, seat)
        books.rows.take(HELD, 1, seat, 0, 1)
    share.columns.publish(1, 0, [7] * PROCESS.width)
    share.bury(1, lambda worker: None)
    plan = share.table.plans[number]
    assert not share.cells[plan.row(1)]
    assert share.columns.total(0, 1) == [7]
    assert [os.eventfd_read(bell) for bell in share.bells] == [1, 1, 1]
    share.columns.publish(share.n_workers, 0, [1] * PROCESS.width)
    share.bury_controller()
    assert share.columns.total(0, 1) == [8]


def test_a_pool_s_seats_are_bounded() -> None:
    share = share_of("{servers: ['127.0.0.1:1']}")
    books = share.books(share.room_names.find("p"), CONTROLLER)
    books.find_seats()
    taken = 1
    while books.give_seat(Server(f"s{taken}", Address("10.0.0.1", 1)), b"card", write_orders):
        taken += 1
    assert taken == 2 + SPARE_SEATS


def test_who_was_stopped_while_at_the_books_does_not_hold_up_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_module, "STUCK_ALARMS", 1)
    share = share_of("{servers: ['127.0.0.1:1']}")
    books, is_inside, may_leave = share.books(share.room_names.find("p"), 1), threading.Event(), threading.Event()

    def stay() -> None:
        books.enter(1.0)
        is_inside.set()
        may_leave.wait()
        books.leave()

    thread = threading.Thread(target=stay)
    thread.start()
    is_inside.wait()
    found: list[int] = []

    def stuck(worker: int) -> None:
        found.append(worker)
        may_leave.set()

    share.bury(0, stuck)
    thread.join()
    assert found[0] == 1
