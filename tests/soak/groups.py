"""Clients that send in bursts with awkward pauses between them, and what became of each request.

A group is some connections that send at the same moment and then pause, all through a listener and a pool of their own.
So the connections that lbproxy keeps to the servers rest as long as the group does, whatever the other groups do, and
a pause of about the server's keep-alive time-out hits the moment at which the server closes them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. status 0: no answer, and `error` says why. proxy_status: the field of that name, or ""."""

    id: str
    status: int
    proxy_status: str = ""
    error: str = ""


def pause_s(rng: random.Random, keep_alive_s: float) -> float:
    """Mostly within some hundredths of a second around the keep-alive time-out, sometimes anything up to above it.

    gunicorn looks for idle connections once a second or so, so it closes at between one and two times the time-out.
    """
    chance = rng.random()
    if chance < 0.4:
        return max(0.0, rng.gauss(keep_alive_s, 0.02))
    if chance < 0.7:
        return rng.uniform(0.8 * keep_alive_s, 1.6 * keep_alive_s)
    return rng.uniform(0.0, 1.2 * keep_alive_s)


async def run_groups(
    ports: Sequence[int], *, posts: int, size: int, keep_alive_s: float, seed: int
) -> dict[int, list[Outcome]]:
    """One group of `size` connections per port; all together send `posts` requests to each... of `ports`' share.

    Returns the outcomes by port. Every port gets the same number of requests, rounded up to whole bursts.
    """
    bursts = -(-posts // (len(ports) * size))
    groups = [_Group(port, size, random.Random(f"{seed} {number}")) for number, port in enumerate(ports)]
    async with asyncio.TaskGroup() as tasks:
        running = {group.port: tasks.create_task(group.run(bursts, keep_alive_s)) for group in groups}
    return {port: task.result() for port, task in running.items()}


class _Group:
    def __init__(self, port: int, size: int, rng: random.Random) -> None:
        self.port = port
        self._rng = rng
        self._clients = [_Client(port) for _ in range(size)]

    async def run(self, bursts: int, keep_alive_s: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        await asyncio.sleep(self._rng.uniform(0.0, keep_alive_s))  # the groups are not in step
        for burst in range(bursts):
            names = [f"{self.port}-{burst}-{number}" for number in range(len(self._clients))]
            asked = (client.post(name) for client, name in zip(self._clients, names, strict=True))
            outcomes += await asyncio.gather(*asked)
            await asyncio.sleep(pause_s(self._rng, keep_alive_s))
        for client in self._clients:
            await client.close()
        return outcomes


class _Client:
    """One connection, made again when it is gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, name: str) -> Outcome:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._post(name)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            await self.close()
            return Outcome(name, 0, error=repr(error))

    async def _post(self, name: str) -> Outcome:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        body = b'{"features": [5.1, 3.5, 1.4, 0.2]}'
        head = f"POST /work/{name} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}
        answer = await reader.readexactly(int(fields["content-length"]))
        status = int(lines[0].split()[1])
        if status == 200 and answer != f"/work/{name}".encode():
            return Outcome(name, 0, error=f"somebody else's answer: {answer!r}")
        if fields.get("connection", "") == "close":
            await self.close()
        return Outcome(name, status, fields.get("proxy-status", ""))

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                return  # it was gone already
