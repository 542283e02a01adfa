"""The last lines: found by their id, and bounded in number and in bytes."""

from __future__ import annotations

import json

import pytest

from lbproxy.telemetry.recent import LIMIT_BYTES, MOST_FOUND, RecentLines, lines_with, needle_of


def line(request_id: str, **more: object) -> bytes:
    return json.dumps({"ts": "now", "request_id": request_id, "target": "/", **more}, separators=(",", ":")).encode()


def batch(*lines: bytes) -> bytes:
    return b"".join(one + b"\n" for one in lines)


def kept(lines: RecentLines) -> list[bytes]:
    return b"".join(reversed(list(lines.newest_first()))).splitlines()


def test_the_newest_come_first() -> None:
    lines = RecentLines(10)
    lines.keep(2, batch(b"1", b"2"))
    lines.keep(1, batch(b"3"))
    assert list(lines.newest_first()) == [b"3\n", b"1\n2\n"]
    assert (lines.n_lines, lines.n_bytes) == (3, 6)


@pytest.mark.parametrize("size", [1, 3, 7, 1024])
def test_so_many_are_kept_and_less_than_a_batch_more(size: int) -> None:
    lines = RecentLines(100)
    for number in range(3000 // size):
        lines.keep(size, batch(*[b"%d" % (number * size + i) for i in range(size)]))
        assert lines.n_lines < 100 + size
    total = 3000 // size * size
    assert kept(lines)[-min(100, total) :] == [b"%d" % i for i in range(total - min(100, total), total)]
    assert lines.n_bytes == sum(map(len, lines.newest_first()))


def test_bytes_are_bounded_whatever_the_lines_are() -> None:
    lines = RecentLines(1_000_000, limit_bytes=1000)
    for number in range(500):
        lines.keep(1, batch(b"x" * (number % 300)))
        assert lines.n_bytes == sum(map(len, lines.newest_first())) <= 1000
    lines.keep(1, batch(b"x" * 2000))
    assert (lines.n_lines, lines.n_bytes, list(lines.newest_first())) == (0, 0, [])
    assert LIMIT_BYTES == 16 << 20


def test_a_line_is_found_whole() -> None:
    data = batch(line("a"), line("b", n=1), line("c"))
    for name in "abc":
        [found] = lines_with(needle_of(name), data)
        assert json.loads(found)["request_id"] == name
    assert lines_with(needle_of("d"), data) == []
    assert lines_with(needle_of("a"), line("a")) == [line("a")]


def test_an_id_is_found_whatever_it_holds() -> None:
    for request_id in ('a"b\\c', "é", "x\n", "ü" * 100):
        assert lines_with(needle_of(request_id), batch(line(request_id))) == [line(request_id)]


def test_no_client_can_forge_a_line() -> None:
    forged = line("real", user_agent='x","request_id":"wanted",')
    assert lines_with(needle_of("wanted"), batch(forged)) == []
    assert lines_with(needle_of("rea"), batch(line("real"))) == []


def test_the_newest_of_an_id_that_comes_again_and_again() -> None:
    data = batch(*[line("same", n=number) for number in range(100)])
    found = [json.loads(one)["n"] for one in lines_with(needle_of("same"), data)]
    assert found == list(range(99, 99 - MOST_FOUND, -1))
