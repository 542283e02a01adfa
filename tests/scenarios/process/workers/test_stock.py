"""The sockets that the supervisor keeps, and how those of another lbproxy are shared out."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lbproxy.dataplane.net.unix_socket import SocketFile
from lbproxy.process.upgrade.sockets import Inherited, Passed
from lbproxy.process.workers.sockets import Door, Doors
from lbproxy.process.workers.stock import Stock
from tests.scenarios.process.workers.test_sockets import n_queued, one, wanted


def handed_over(n_before: int, n_workers: int) -> tuple[Door, Doors]:
    """What so many workers have, for so many others; and what these make of it."""
    before = one("127.0.0.1:0", n_before)
    [(name, item)] = wanted(before.addresses[0]).items()
    passed = Passed(tuple(sock.dup() for sockets in before.slots for sock in sockets))
    doors = Doors(n_workers)
    doors.bind({name: item}, Inherited({name: passed}), is_handed_over=True)
    return before, doors


def connect(door: Door, count: int) -> list[socket.socket]:
    [port] = door.ports
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


@pytest.mark.parametrize(
    ("n_before", "n_workers", "each"), [(2, 2, [1, 1]), (3, 2, [2, 1]), (2, 1, [2]), (1, 3, [1, 0, 0])]
)
def test_every_socket_has_a_worker(n_before: int, n_workers: int, each: list[int]) -> None:
    before, doors = handed_over(n_before, n_workers)
    [door] = doors.open.values()
    assert [len(sockets) for sockets in door.slots] == each
    assert door.addresses == before.addresses
    assert doors.n_seated == len([count for count in each if count])
    clients = connect(before, 40)
    assert sum(n_queued(sockets) for sockets in door.slots) == 40, "nobody waits where nobody accepts"
    for client in clients:
        client.close()
    before.close()
    doors.close()


@pytest.mark.parametrize("n_before", [1, 2])
def test_whoever_has_none_gets_one_later(n_before: int) -> None:
    before, doors = handed_over(n_before, 3)
    doors.widen()
    [door] = doors.open.values()
    assert [len(sockets) for sockets in door.slots] == [1, 1, 1] and doors.n_seated == 3
    clients = connect(before, 60)
    counts = [n_queued(sockets) for sockets in door.slots]
    assert sum(counts) == 60 and min(counts) > 0, counts
    for client in clients:
        client.close()
    before.close()
    doors.close()


def test_files_belong_to_whoever_serves(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    door = one(f"unix:{path}", 2)
    assert isinstance(door.file, SocketFile)
    stock = Stock(2)
    stock.owns_files = False
    stock.doors.open["in"] = door
    assert list(stock.offered()) == ["in"] and len(stock.offered()["in"][0]) == 1
    stock.remove_files()
    assert path.exists()
    stock.hand_over(["in"])
    assert path.exists() and stock.doors.open == {}


def test_what_nobody_takes_ends(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    stock = Stock(2)
    stock.doors.open["in"] = one(f"unix:{path}", 2)
    stock.hand_over([])
    assert not path.exists()


@pytest.mark.parametrize("keeps_files", [True, False])
def test_what_is_of_a_config_that_will_not_be_is_closed(tmp_path: Path, *, keeps_files: bool) -> None:
    path = tmp_path / "in.sock"
    stock = Stock(2)
    stock.fresh["in"] = one(f"unix:{path}", 2)
    assert stock.drop_fresh(keeps_files=keeps_files) == ["in"]
    assert path.exists() == keeps_files
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
        client.connect(str(path))
    assert stock.drop_fresh() == []
