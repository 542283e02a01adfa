"""What sockets are for, told by one process and understood by another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lbproxy.address import Address
from lbproxy.dataplane.net.unix_socket import SocketFile
from lbproxy.process.upgrade.sockets import Given, Inherited, admin_name, describe, identify


class FakeSocket:
    def __init__(self) -> None:
        self.is_open = True
        self.is_blocking = True

    def setblocking(self, is_blocking: bool) -> None:
        self.is_blocking = is_blocking

    def close(self) -> None:
        self.is_open = False


def identified(told: object, count: int) -> tuple[Inherited, list[Any]]:
    sockets: list[Any] = [FakeSocket() for _ in range(count)]
    return identify(told, sockets), sockets


def test_what_is_described_is_what_is_understood() -> None:
    file = SocketFile(Path("/run/in.sock"), 3, 4)
    fds, told = describe(
        {
            "127.0.0.1:80": Given([7]),
            "localhost:81": Given([8, 9]),
            "unix:/run/in.sock": Given([5], file, is_ours=True),
            "unix:@ours": Given([6], is_ours=True),
            "unix:@theirs": Given([4]),
        }
    )
    assert fds == [7, 8, 9, 5, 6, 4]
    found, sockets = identified(json.loads(json.dumps(told)), 6)
    assert {name: item.is_ours for name, item in found.waiting.items() if "unix" in name} == {
        "unix:/run/in.sock": True,
        "unix:@ours": True,
        "unix:@theirs": False,
    }
    assert not any(sock.is_blocking for sock in sockets)
    both = found.take("localhost:81")
    assert both is not None and both.sockets == (sockets[1], sockets[2]) and both.file is None
    unix = found.take("unix:/run/in.sock")
    assert unix is not None and unix.file == file
    assert found.take("localhost:81") is None and found.take("nobody:1") is None
    assert found.taken == ["localhost:81", "unix:/run/in.sock"]
    found.close()
    assert [sock.is_open for sock in sockets] == [False, True, True, True, False, False]
    assert found.waiting == {}


def test_a_version_that_does_not_say_whose_they_are_knows_it_of_files() -> None:
    told = [{"name": "unix:/a", "count": 1, "file": ["/a", 1, 2]}, {"name": "unix:@a", "count": 1, "file": None}]
    found, _ = identified(told, 2)
    assert [item.is_ours for item in found.waiting.values()] == [True, False]


@pytest.mark.parametrize(
    ("told", "count"),
    [
        (None, 0),
        ([], 1),
        ([{"name": "a", "count": 2, "file": None}], 1),
        ([{"name": "a", "count": -1, "file": None}], 0),
        ([{"name": "a", "count": 1, "file": ["/x", "1", 2]}], 1),
        ([{"name": "a", "count": 1, "file": None}, {"name": "a", "count": 1, "file": None}], 2),
        ([{"name": 1}], 1),
    ],
)
def test_what_does_not_fit_is_refused(told: object, count: int) -> None:
    with pytest.raises(ValueError):
        identified(told, count)


def test_no_listener_has_the_name_of_the_admin_socket() -> None:
    assert admin_name(Address("127.0.0.1", 80)) == "admin 127.0.0.1:80" != str(Address("127.0.0.1", 80))
