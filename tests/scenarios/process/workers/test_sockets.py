"""Listening sockets for several workers."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from lbproxy.config.loader import load_text
from lbproxy.dataplane.listener import BindError
from lbproxy.process.listeners import Bind, binds_of
from lbproxy.process.upgrade.sockets import Inherited, Passed
from lbproxy.process.workers.sockets import Door, Doors, flat, open_door, unflat


def wanted(*binds: str) -> dict[str, Bind]:
    listeners = ", ".join(f"{{bind: '{bind}', pool: p}}" for bind in binds)
    text = f"listeners: [{listeners}]\npools: {{p: {{servers: ['127.0.0.1:2']}}}}\n"
    return binds_of(load_text(text, "lb.yaml", {}).config)


def one(bind: str, n_workers: int = 3) -> Door:
    (item,) = wanted(bind).values()
    return open_door(item, n_workers)


def n_queued(sockets: tuple[socket.socket, ...]) -> int:
    """How many connections wait there; they are taken."""
    count = 0
    for sock in sockets:
        while select.select([sock], [], [], 0)[0]:
            sock.accept()[0].close()
            count += 1
    return count


def test_each_worker_has_a_socket_of_its_own_at_one_port() -> None:
    door = one("127.0.0.1:0")
    (port,) = door.ports
    assert {sock.getsockname() for sockets in door.slots for sock in sockets} == {("127.0.0.1", port)}
    assert len({sock.fileno() for sockets in door.slots for sock in sockets}) == 3
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    counts = [n_queued(sockets) for sockets in door.slots]
    assert sum(counts) == 60
    assert min(counts) > 0  # 3 * (2/3)**60 is nothing
    for client in clients:
        client.close()
    door.close()


def test_a_port_that_somebody_shares_is_taken() -> None:
    door = one("127.0.0.1:0")
    (port,) = door.ports
    with pytest.raises(BindError, match="something else listens there"):
        one(f"127.0.0.1:{port}")
    door.close()
    one(f"127.0.0.1:{port}").close()


def test_a_unix_socket_is_one_for_all(tmp_path: Path) -> None:
    path = tmp_path / "s"
    door = one(f"unix:{path}")
    assert len({id(sock) for sockets in door.slots for sock in sockets}) == 1
    door.close(keeps_file=True)
    assert path.exists()
    assert door.file is not None
    door.file.remove()
    assert not path.exists()


def test_nothing_stays_open_where_one_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        doors = Doors(2)
        with pytest.raises(BindError):
            doors.bind(wanted("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"), Inherited())
        assert doors.open == {}
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_worker_keeps_its_own() -> None:
    doors = Doors(2)
    doors.bind(wanted("127.0.0.1:0"), Inherited())
    (door,) = doors.open.values()
    passed = doors.leave_to(1)
    (item,) = passed.waiting.values()
    assert item.sockets == door.slots[1]
    assert [sock.fileno() for sock in door.slots[0]] == [-1]
    assert item.sockets[0].fileno() != -1
    passed.close()


def test_a_worker_knows_whether_a_service_manager_keeps_a_unix_socket(tmp_path: Path) -> None:
    own = one(f"unix:{tmp_path / 'own'}", 2)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        (item,) = wanted(f"unix:{tmp_path / 's'}").values()
        passed = open_door(item, 2, passed=Passed((sock,)))
        assert (own.leave_to(0).is_ours, passed.leave_to(0).is_ours) == (True, False)
        own.close()


@pytest.mark.parametrize("is_ours", [True, False])
def test_whose_an_abstract_socket_is_goes_from_lbproxy_to_lbproxy(is_ours: bool) -> None:
    """It has no file that would say so."""
    (item,) = wanted("unix:@lbproxy-test-whose").values()
    with socket.socket(socket.AF_UNIX) as sock:
        door = open_door(item, 2, passed=Passed((sock,), is_ours=is_ours), is_handed_over=True)
        told, fds = flat({"name": door})
        found = unflat(told, [os.dup(fd) for fd in fds], 2)["name"]
        assert (door.is_ours, found.is_ours, found.leave_to(1).is_ours) == (is_ours,) * 3
        found.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_doors_are_the_same_after_they_were_told(kind: str, tmp_path: Path) -> None:
    door = one("127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path / 's'}", 2)
    told, fds = flat({"name": door})
    found = unflat(told, [os.dup(fd) for fd in fds], 2)["name"]
    assert (found.listener, found.addresses, found.ports, found.file) == (
        door.listener,
        door.addresses,
        door.ports,
        door.file,
    )
    assert (found.slots[0] is found.slots[1]) == (kind == "unix")
    found.close(keeps_file=True)
    door.close()
