from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lbproxy.config.problems import ConfigError, Problem
from lbproxy.config.server_model import ServerSpec
from lbproxy.config.servers_file import parse_servers
from lbproxy.control.discovery.servers_file import POLL_S, QUIET_S, RETRY_S, ServersFile
from lbproxy.control.discovery.source import Answer, Trouble
from lbproxy.control.file_watch import Signature


class Bench:
    """A file whose content and signature the test sets."""

    def __init__(self, text: str | None) -> None:
        self.now = 100.0
        self.version = 0
        self.text = text
        self.n_reads = 0
        self.source = ServersFile(
            "s.yaml",
            "/etc/s.yaml",
            lambda: self.now,
            environ={"HOST": "10.0.0.9"},
            read=self.read,
            look_at=self.look_at,
            in_thread=self.in_thread,
        )

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def look_at(self, paths: Sequence[str]) -> Signature:
        assert tuple(paths) == ("/etc/s.yaml",)
        return (None if self.text is None else (self.version, 7, len(self.text)),)

    def read(self, path: str, environ: Mapping[str, str]) -> Sequence[ServerSpec]:
        self.n_reads += 1
        if self.text is None:
            raise ConfigError((Problem(path, 0, 0, "", "there is no such file"),))
        return parse_servers(self.text, path, environ)

    def write(self, text: str | None) -> None:
        self.text = text
        self.version += 1

    async def look(self, after_s: float = 0.0) -> object:
        """The names of what is found, the reason of a trouble, or None."""
        self.now += after_s
        return told(await self.source.look())


def told(answer: Answer | None) -> object:
    if answer is None or isinstance(answer, Trouble):
        return answer and answer.why
    return [found.name for found in answer]


async def test_the_first_look_is_an_answer_at_once() -> None:
    bench = Bench("[10.0.0.1:80, {address: '${HOST}:80', name: gpu, weight: 3}]")
    answer = await bench.source.look()
    assert told(answer) == ["10.0.0.1:80", "gpu"]
    assert not isinstance(answer, Trouble) and answer is not None and answer[1].weight == 3
    assert bench.source.wait_s == POLL_S


async def test_what_has_not_changed_is_not_read_again_and_is_a_success() -> None:
    bench = Bench("[10.0.0.1:80]")
    first = await bench.source.look()
    for _ in range(5):
        bench.now += POLL_S
        assert await bench.source.look() is first
    assert bench.n_reads == 1


async def test_a_change_is_read_when_it_is_quiet() -> None:
    bench = Bench("[10.0.0.1:80]")
    await bench.look()
    for number in range(2, 6):
        bench.write(f"[10.0.0.{number}:80]")
        assert await bench.look(0.1) is None
        assert bench.source.wait_s == QUIET_S
    assert await bench.look(QUIET_S / 2) is None
    assert await bench.look(QUIET_S / 2 + 0.01) == ["10.0.0.5:80"]
    assert (bench.n_reads, bench.source.wait_s) == (2, POLL_S)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "/etc/s.yaml: there is no such file"),
        ("", "/etc/s.yaml:1:1: is empty; write [] for a list of no servers"),
        ("- 10.0.0.1\n", "/etc/s.yaml:1:3: [0]: '10.0.0.1' has no port; write host:port"),
        ("- [\n", "/etc/s.yaml:1:3: the [ that opens here is not closed; close it, or remove it"),
    ],
)
async def test_what_cannot_be_read_is_trouble_and_is_tried_again(text: str | None, why: str) -> None:
    bench = Bench("[10.0.0.1:80]")
    await bench.look()
    bench.write(text)
    assert await bench.look() is None
    assert await bench.look(QUIET_S) == why
    assert await bench.look(RETRY_S - 0.1) is None
    assert await bench.look(0.2) == why
    bench.write("[]")
    await bench.look()
    assert await bench.look(QUIET_S) == []


async def test_a_file_with_many_problems_is_one_line() -> None:
    bench = Bench("\n".join(["- 10.0.0.1"] * 9))
    why = await bench.look()
    assert isinstance(why, str) and why.count("has no port") == 3 and why.endswith("(and 6 more problems)")


async def test_it_is_looked_at_again_and_again() -> None:
    bench = Bench("[10.0.0.1:80]")
    waits: list[float] = []

    async def pause(woken: asyncio.Event, wait_s: float) -> None:
        waits.append(wait_s)
        bench.now += wait_s
        if len(waits) == 1:
            bench.write("[10.0.0.2:80]")
        if len(waits) == 4:
            raise asyncio.CancelledError

    bench.source._pause = pause
    heard: list[Answer] = []
    with pytest.raises(asyncio.CancelledError):
        await bench.source.watch(heard.append)
    assert waits == [POLL_S, QUIET_S, POLL_S, POLL_S]
    assert [told(answer) for answer in heard] == [["10.0.0.1:80"], ["10.0.0.2:80"], ["10.0.0.2:80"]]


def test_it_has_words_for_what_happens() -> None:
    source = Bench("[]").source
    assert (source.name, source.kind) == ("servers_file:s.yaml", "servers_file")
    assert source.failed("/etc/s.yaml:1:1: is empty") == "/etc/s.yaml:1:1: is empty"
    assert source.recovered(2) == "servers_file s.yaml is good again, with 2 servers"
    assert source.gone() == "servers_file s.yaml no longer lists it"
    assert source.stays() == "servers_file s.yaml lists it"
