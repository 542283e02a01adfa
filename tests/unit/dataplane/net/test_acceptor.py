"""What accept(2) says that is no connection. The listening socket is a script."""

from __future__ import annotations

import errno
import os
import socket
from typing import cast

import pytest

from lbproxy.dataplane.net.acceptor import ACCEPT_BATCH, OF_THE_CONNECTION, OF_THE_SYSTEM, Accepting, Acceptor


class FakeListening:
    """accept gives what the script says, then there is nobody."""

    family = socket.AF_UNIX

    def __init__(self, *script: int) -> None:
        self.script = list(script)

    def fileno(self) -> int:
        return 9

    def _accept(self) -> tuple[int, object]:
        if not self.script:
            raise BlockingIOError
        number = self.script.pop(0)
        if number:
            raise OSError(number, os.strerror(number))
        return 77, ""


class Owner(Accepting):
    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.calls: list[str] = []

    @property
    def may_accept(self) -> bool:
        return self.room > 0

    def somebody_waits(self) -> None:
        self.calls.append("waits")

    def accepted(self, fd: int, family: int, peer: object, local: object) -> None:
        assert (fd, family, peer, local) == (77, socket.AF_UNIX, "", "")
        self.room -= 1
        self.calls.append("accepted")

    def accept_failed(self, reason: str, error: OSError) -> None:
        self.calls.append(reason)

    def try_later(self) -> None:
        self.calls.append("later")


def test_as_many_as_are_asked_for_and_a_flood_leaves_others_their_turn() -> None:
    owner = Owner()
    acceptor = Acceptor(owner, cast(socket.socket, FakeListening(*[0] * 500)))
    acceptor.ready(1)
    assert owner.calls == ["accepted"] * ACCEPT_BATCH
    acceptor.accept(300)
    assert owner.calls == ["accepted"] * (ACCEPT_BATCH + 300)
    acceptor.accept(300)
    assert owner.calls == ["accepted"] * 500


def run(*script: int, room: int = 1000) -> list[str]:
    owner = Owner(room)
    Acceptor(owner, cast(socket.socket, FakeListening(*script))).ready(1)
    return owner.calls


@pytest.mark.parametrize("number", sorted(OF_THE_CONNECTION), ids=lambda number: errno.errorcode[number])
def test_what_happened_to_a_connection_is_no_reason_to_stop(number: int) -> None:
    assert run(0, number, 0) == ["accepted", "network", "accepted"]


@pytest.mark.parametrize("number", sorted(OF_THE_SYSTEM), ids=lambda number: errno.errorcode[number])
def test_what_the_system_is_out_of_is_tried_later(number: int) -> None:
    assert run(0, number, 0) == ["accepted", "resources", "later"]


def test_the_list_of_the_manual_page() -> None:
    """accept(2): "For TCP/IP, these are ENETDOWN, EPROTO, ..."; they are to be treated like EAGAIN."""
    names = "ENETDOWN EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ECONNABORTED EPERM"
    assert {getattr(errno, name) for name in names.split()} <= OF_THE_CONNECTION
    assert {getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")} == OF_THE_SYSTEM


def test_a_socket_that_only_fails_does_not_spin() -> None:
    assert run(*[errno.EOPNOTSUPP] * 100) == ["network"] * ACCEPT_BATCH + ["later"]


def test_what_nobody_knows_is_a_defect() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        run(errno.EBADF)


def test_somebody_waits_only_if_nobody_was_let_in() -> None:
    assert run(0, 0, 0, room=2) == ["accepted", "accepted"]
    assert run(0, room=0) == ["waits"]
