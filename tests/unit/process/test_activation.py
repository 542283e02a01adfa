"""Which socket of a service manager is whose."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.address import parse_address
from lbproxy.process.activation import assign, listen_fds


class FakeSocket:
    is_open = True

    def close(self) -> None:
        self.is_open = False


def assigned(wanted: list[str], opened: list[str]) -> tuple[dict[str, list[int]], list[str], list[bool]]:
    """By name, which of the opened ones; what is told; which are still open."""
    sockets: list[Any] = [FakeSocket() for _ in opened]
    found, odd = assign(
        {text: parse_address(text) for text in wanted},
        [(parse_address(text), sock) for text, sock in zip(opened, sockets, strict=True)],
    )
    by_name = {name: [sockets.index(sock) for sock in item.sockets] for name, item in found.waiting.items()}
    return by_name, odd, [sock.is_open for sock in sockets]


def test_by_address() -> None:
    wanted = ["0.0.0.0:80", "[::1]:80", "unix:/run/a", "unix:@b", "127.0.0.1:81"]
    assert assigned(wanted, ["unix:@b", "unix:/run/a", "[0:0:0::1]:80", "0.0.0.0:80"]) == (
        {"unix:@b": [0], "unix:/run/a": [1], "[::1]:80": [2], "0.0.0.0:80": [3]},
        [],
        [True] * 4,
    )


def test_localhost_is_both() -> None:
    assert assigned(["localhost:80"], ["127.0.0.1:80", "[::1]:80"])[0] == {"localhost:80": [0, 1]}


def test_what_nobody_binds_is_told_and_closed() -> None:
    opened = ["127.0.0.1:80", "0.0.0.0:81", "[::]:80", "unix:/run/b"]
    found, odd, is_open = assigned(["0.0.0.0:80", "unix:/run/a"], opened)
    assert found == {} and len(odd) == 4 and is_open == [False] * 4
    assert odd[0] == (
        "the service manager has opened 127.0.0.1:80, which no listener binds: nobody is accepted there; "
        "the config binds 0.0.0.0:80, unix:/run/a"
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, range(0)),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "5", "LISTEN_FDNAMES": "a:b"}, range(3, 5)),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "6"}, range(0)),
        ({"LISTEN_FDS": "2"}, range(0)),
    ],
)
def test_those_for_this_process(environ: dict[str, str], expected: range) -> None:
    assert listen_fds(environ, 5) == expected
    assert environ == {}


@pytest.mark.parametrize("count", ["-1", "x", "99999999"])
def test_a_count_that_is_none(count: str) -> None:
    with pytest.raises(ValueError, match="LISTEN_FDS"):
        listen_fds({"LISTEN_FDS": count, "LISTEN_PID": "5"}, 5)
