"""Listening sockets of the kernel: what is bound, what stays, and what a second listener is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.listener import BindError, Listener
from lbproxy.dataplane.net.admission import AddressCounts


def listener() -> Listener:
    services = SimpleNamespace(loop=asyncio.get_running_loop())
    runtime = SimpleNamespace(name="web", takes_proxy_header=False, per_ip=AddressCounts(10))
    return Listener(cast(Any, services), cast(Any, runtime), ConnectionGate(10))


class Leaving(Listener):
    """Keeps who is accepted, and is otherwise without a data plane."""

    def __init__(self, room: int) -> None:
        poller = SimpleNamespace(watch=lambda *_: None, forget=lambda _: None)
        runtime: Any = SimpleNamespace(name="web", takes_proxy_header=False, per_ip=AddressCounts(10))
        runtime.leaving = lambda: runtime
        self.clients: list[socket.socket] = []
        super().__init__(cast(Any, SimpleNamespace(poller=poller, swept=[])), runtime, ConnectionGate(room))

    def accepted(self, fd: int, family: int, peer: object, local: object) -> None:
        self.clients.append(socket.socket(fileno=fd))
        self._gate.opened()


@pytest.mark.parametrize(("room", "n_served"), [(1000, 300), (250, 250)])
def test_all_who_are_in_the_kernel_s_queue_are_let_in_when_a_listener_leaves(room: int, n_served: int) -> None:
    own = Leaving(room)
    own.bind((parse_address("127.0.0.1:0"),), None)
    address = parse_address(own.addresses[0])
    own.start()
    with contextlib.ExitStack() as stack:
        queued = [stack.enter_context(socket.create_connection((address.host, address.port))) for _ in range(300)]
        own.leave(0.0)
        for client in own.clients:
            stack.enter_context(client)
        assert len(own.clients) == n_served
        for client in own.clients:
            client.sendall(b"a")
        assert [client.recv(1) for client in queued[:n_served]] == [b"a"] * n_served
        for client in queued[n_served:]:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert not connects(address)


def test_who_waits_when_another_process_takes_over_is_let_in_though_that_one_has_ended() -> None:
    """It had the sockets, too, and was told to stop as soon as it served: those who came meanwhile were reset."""
    own = Leaving(1000)
    own.bind((parse_address("127.0.0.1:0"),), None)
    address = parse_address(own.addresses[0])
    own.start()
    with contextlib.ExitStack() as stack:
        queued = [stack.enter_context(socket.create_connection((address.host, address.port))) for _ in range(20)]
        own.hand_over()
        for client in own.clients:
            stack.enter_context(client)
            client.sendall(b"a")
        assert [client.recv(1) for client in queued] == [b"a"] * 20
    assert not connects(address)


@pytest.mark.parametrize("end", [Leaving.close, lambda own: own.leave(0.0)])
def test_who_closes_a_unix_socket_of_lbproxy_s_own_closes_it_for_all(
    tmp_path: Path, end: Callable[[Leaving], None]
) -> None:
    """Another worker has it, too, and may be between its last accept and its close: who came then was reset."""
    own = Leaving(1000)
    address = parse_address(f"unix:{tmp_path / 'a.sock'}")
    own.bind((address,), None)
    own.start()
    with socket.socket(fileno=os.dup(own.filenos()[0])) as other, socket.socket(socket.AF_UNIX) as queued:
        queued.connect(address.sock_path)
        os.link(address.path, tmp_path / "again")
        end(own)
        [client] = own.clients
        with client:
            client.sendall(b"a")
            assert queued.recv(1) == b"a"
        assert not connects(parse_address(f"unix:{tmp_path / 'again'}"))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_worker_does_not_wait_for_those_whom_another_one_has_turned_away(tmp_path: Path) -> None:
    """The kernel says for ever that there is something to accept."""
    first, second = Leaving(1000), Leaving(1000)
    first.bind((parse_address(f"unix:{tmp_path / 'a.sock'}"),), None)
    first.start()
    second.inherit([socket.socket(fileno=os.dup(first.filenos()[0]))], None, None, is_ours=True)
    with socket.socket(socket.AF_UNIX) as queued:
        queued.connect(str(tmp_path / "a.sock"))
        assert second.has_queued
        first.close()
        assert not second.has_queued
        second.close()
        for client in first.clients:
            client.close()


@pytest.mark.parametrize("is_last", [True, False])
def test_a_unix_socket_that_others_may_go_on_with_is_left_open(tmp_path: Path, is_last: bool) -> None:
    """A service manager's, and what another lbproxy may have."""
    path = tmp_path / "a.sock"
    own = Leaving(1000)
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        passed.setblocking(False)
        own.inherit([passed.dup()], None, None, is_ours=not is_last)
        own.start()
        own.close(is_last=is_last)
        assert connects(parse_address(f"unix:{path}"))


def connects(address: Address) -> bool:
    family = socket.AF_UNIX if address.is_unix else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(address.sock_path if address.is_unix else (address.host, address.port))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "unix:@lbproxy-test-listener"])
async def test_a_bound_address_accepts_and_a_closed_one_does_not(bind: str) -> None:
    own = listener()
    own.bind((parse_address(bind),), None)
    address = parse_address(own.addresses[0])
    assert connects(address)
    own.close()
    assert not connects(address) and own.addresses == []


async def test_an_address_that_is_taken_is_named_and_nothing_stays_open() -> None:
    first, second = listener(), listener()
    first.bind((parse_address("127.0.0.1:0"),), None)
    taken = parse_address(first.addresses[0])
    with pytest.raises(BindError, match=f"listener web: cannot listen on {taken}.*something else listens there"):
        second.bind((parse_address("127.0.0.1:0"), taken), None)
    assert second.addresses == []
    first.close()


async def test_a_unix_socket_has_its_mode_and_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    for bits in (None, 0o600):
        own = listener()
        own.bind((Address("", 0, str(path)),), bits)
        assert stat.S_IMODE(path.stat().st_mode) == (bits if bits is not None else 0o660)
        own.close()
        assert not path.exists()


async def test_a_stale_unix_socket_is_replaced_but_not_one_in_use_nor_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    own = listener()
    own.bind((Address("", 0, str(path)),), None)
    with pytest.raises(BindError, match="something else listens there"):
        listener().bind((Address("", 0, str(path)),), None)
    assert connects(Address("", 0, str(path)))
    own.close()
    path.write_text("precious")
    with pytest.raises(BindError, match="exists and is not a socket"):
        listener().bind((Address("", 0, str(path)),), None)
    assert path.read_text() == "precious"
