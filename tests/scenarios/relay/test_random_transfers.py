"""200 connections at once with random sizes, pieces, ends and resets: exact, or reset as the other side was."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bulk import MIB, Check, Pattern
from tests.support.daemon import LbProxy
from tests.support.waiting import wait_until

COUNT = 200
PIECES = (1, 100, 1460, 16 * 1024, 64 * 1024, 300_000)
LIMIT_S = 100
RESET = (ConnectionResetError, BrokenPipeError)


@dataclass(frozen=True)
class Plan:
    """What the two sides of one connection do; both work it out from the number that the client sends first.

    resetter: "client", "server" or None. It sends and reads so much and then resets; the victim must see a reset.
    waits: the server sends its first byte only after the client's FIN, or the other way round, or nobody waits.
    """

    up: Pattern
    down: Pattern
    resetter: str | None
    waits: str | None
    share: float

    @classmethod
    def of(cls, number: int) -> Plan:
        rng = random.Random(number)

        def size() -> int:
            return rng.choice((rng.randrange(1, 2000), rng.randrange(1, 400_000), rng.randrange(MIB, 4 * MIB)))

        resetter = rng.choice((None, None, None, "client", "server"))
        waits = rng.choice((None, None, "client", "server")) if resetter is None else None
        return cls(Pattern(size(), number), Pattern(size(), number + 1), resetter, waits, rng.random())


class Side:
    """One end of one connection."""

    def __init__(
        self, plan: Plan, name: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.plan = plan
        self.reader = reader
        self.writer = writer
        self.rng = random.Random(number + ord(name[0]))
        self.sends, receives = (plan.up, plan.down) if name == "client" else (plan.down, plan.up)
        self.check = Check(receives)
        self.is_resetter = plan.resetter == name
        self.is_victim = plan.resetter is not None and not self.is_resetter
        self.waits = plan.waits == name
        self.end = ""
        self.fin_seen = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            try:
                await asyncio.gather(self._send(), self._receive())
            finally:
                if self.is_resetter:
                    sock = self.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.writer.transport.abort()
                self.writer.close()
                with contextlib.suppress(*RESET):
                    await self.writer.wait_closed()

    async def _send(self) -> None:
        if self.waits:
            await self.fin_seen.wait()
        stop = int(self.sends.size * self.plan.share) if self.is_resetter else self.sends.size
        at = 0
        with contextlib.suppress(*RESET if self.is_victim else ()):
            while at < stop:
                piece = self.sends.piece(at, min(stop - at, self.rng.choice(PIECES)))
                self.writer.write(piece)
                at += len(piece)
                await self.writer.drain()
            if self.plan.resetter is None:
                self.writer.write_eof()

    async def _receive(self) -> None:
        stop = int(self.check.pattern.size * (1 - self.plan.share)) if self.is_resetter else None
        try:
            while stop is None or self.check.n < stop:
                limit = self.rng.choice(PIECES)
                data = await self.reader.read(limit if stop is None else min(limit, stop - self.check.n))
                if not data:
                    self.end = "fin"
                    break
                self.check.feed(data)
        except RESET:
            self.end = "rst"
        self.fin_seen.set()

    def verdict(self) -> str:
        """Empty if this side saw what it must."""
        if self.plan.resetter is None:
            fine = self.end == "fin" and self.check.is_whole
        elif self.is_resetter:
            fine = self.end == ""
        else:
            fine = self.end == "rst"
        return "" if fine else f"{self.end or 'open'} after {self.check.n} of {self.check.pattern.size}: {self.plan}"


@contextlib.asynccontextmanager
async def serving(sock: socket.socket, verdicts: list[str]) -> AsyncIterator[None]:
    """The servers' side, until every connection that came was played to its end."""
    running: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = int.from_bytes(await reader.readexactly(4), "big")
        side = Side(Plan.of(number), "server", number, reader, writer)
        await side.run()
        verdicts.append(side.verdict())

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.get_running_loop().create_task(play(reader, writer)))

    server = await asyncio.start_server(connected, sock=sock, limit=256 * 1024)
    async with server:
        yield
        await asyncio.gather(*running)


async def connect(port: int, number: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=256 * 1024)
    writer.write(number.to_bytes(4, "big"))
    side = Side(Plan.of(number), "client", number, reader, writer)
    await side.run()
    return side.verdict()


async def transfers(sock: socket.socket, port: int, seed: int) -> tuple[list[str], list[str]]:
    of_servers: list[str] = []
    async with serving(sock, of_servers):
        numbers = range(seed * COUNT, (seed + 1) * COUNT)
        of_clients = await asyncio.gather(*(connect(port, number) for number in numbers))
    return of_clients, of_servers


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_200_random_transfers_are_exact_or_reset(tmp_path: Path, seed: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "p"}],
            "pools": {"p": {"servers": [f"127.0.0.1:{sock.getsockname()[1]}"], "health_check": "off"}},
        }
        with LbProxy(settings, tmp_path) as lb:
            of_clients, of_servers = asyncio.run(transfers(sock, lb.port("in"), seed))
            assert len(of_clients) == len(of_servers) == COUNT
            assert not [verdict for verdict in of_clients + of_servers if verdict]
            lb.check_idle()
            assert lb.fd_count() <= lb.baseline_fds
            assert not lb.error_lines()
            wait_until(lambda: len(lb.access_log()) == COUNT, f"{COUNT} lines in the log")
            ends = [entry["end"] for entry in lb.access_log()]
        plans = [Plan.of(number) for number in range(seed * COUNT, (seed + 1) * COUNT)]
        resets = {"client": "client_abort", "server": "reset", None: "ok"}
        for resetter, word in resets.items():
            assert ends.count(word) == sum(plan.resetter == resetter for plan in plans), word
