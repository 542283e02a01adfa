"""The connection to Redis that rate limits ask: one for each process and URL, used for one batch after the other.

redis-py makes it: it knows addresses, passwords and TLS. It is there only with `pip install 'lbproxy[redis]'`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from lbproxy.control.fleet.buckets import FleetBuckets, Known
from lbproxy.telemetry.log import ThrottledLog

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

log = logging.getLogger("lbproxy.control")

CONNECT_S: Final = 1.0
DEAD_S: Final = 1.0  # without an answer: the connection is not used any more
MOST_LINE: Final = 1024  # of an answer that is none
PACE_S: Final = 0.002  # between two batches, so that what comes meanwhile is one batch
FIRST_PAUSE_S: Final = 0.05
MOST_PAUSE_S: Final = 2.0

# GCRA as in domain/buckets.py, by the clock of Redis, in microseconds: for each key interval, depth and how many tokens
# are wanted. Says how many were given, and when there is another one.
SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local said = {}
for i, key in ipairs(KEYS) do
  local interval, depth = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local full_at = tonumber(redis.call('GET', key)) or now
  if full_at < now then full_at = now elseif full_at > now + depth then full_at = now + depth end
  local given = math.min(tonumber(ARGV[3 * i]), math.floor((now + depth - full_at) / interval + 0.000001))
  if given > 0 then
    full_at = full_at + given * interval
    redis.call('SET', key, string.format('%.2f', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1)
  else
    given = 0
  end
  said[2 * i - 1] = given
  said[2 * i] = math.max(0, math.ceil(full_at + interval - depth - now))
end
return said
"""


def shown_url(url: str) -> str:
    """For people: without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def packed(words: Sequence[bytes]) -> bytes:
    """A command as Redis reads it (RESP)."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def command(sha: bytes, batch: Sequence[Known]) -> bytes:
    """The call of the script for a batch."""
    words = [b"EVALSHA", sha, b"%d" % len(batch), *[known.name for known in batch]]
    for known in batch:
        limit = known.limit
        words += [b"%.3f" % (int(limit.interval) / 1e3), b"%.3f" % (int(limit.depth) / 1e3), b"%d" % known.wanted]
    return packed(words)


class Ended(OSError):
    """The connection is over, or what came on it can't be used."""


class Answers(asyncio.Protocol):
    """Reads the answers of Redis to one call after the other: lists of numbers. heard: gets each. ended: why there will
    be no more, once.

    A protocol, and not a stream that a task reads: that would be most of what a batch costs.
    """

    def __init__(self, heard: Callable[[list[int]], None], ended: asyncio.Future[str]) -> None:
        self._heard = heard
        self.ended = ended
        self._data = b""
        self.n_wanted = 0  # numbers of the answer that is to come; 0: none is

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        lines = data.split(b"\r\n")
        if data[:1] != b"*" and (len(lines) > 1 or len(data) > MOST_LINE):
            self._end(f"it says {lines[0][:200].decode(errors='replace')}")
            return
        if len(lines) < self.n_wanted + 2:
            self._data = data
            return
        self._data = b""
        try:
            found = [int(line[1:]) for line in lines[1:-1]]
        except ValueError:
            found = []
        if len(found) != self.n_wanted:
            self._end("its answer is not what was asked for")
            return
        self.n_wanted = 0
        self._heard(found)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "it closed the connection")

    def _end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


class RedisLink:
    """See the module. `buckets` is what asks it. Call `run` as a task: it connects, again and again."""

    def __init__(self, url: str, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.shown = shown_url(url)
        self._url = url
        self._clock = clock
        self._log = ThrottledLog(log, 10.0)
        self._is_wanted = self._is_due = False
        self._sent_at = 0.0
        self._sha = b""
        self._answers: Answers | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.buckets = FleetBuckets(self, timeout_s, clock)

    # --- batches ------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """See Line."""
        self._is_wanted = True
        answers = self._answers
        if answers is not None and not answers.n_wanted and not self._is_due:
            self._is_due = True
            loop, early_s = asyncio.get_running_loop(), self._sent_at + PACE_S - self._clock()
            if early_s > 0.0:
                loop.call_later(early_s, self._send)
            else:
                loop.call_soon(self._send)  # with what else comes in this turn of the loop

    def later(self, delay_s: float, callback: Callable[[list[Known]], None], batch: list[Known]) -> object:
        """See Line."""
        return asyncio.get_running_loop().call_later(delay_s, callback, batch)

    def _send(self) -> None:
        self._is_due = False
        answers, transport = self._answers, self._transport
        if answers is None or transport is None or answers.n_wanted or transport.is_closing():
            return  # that it is closed may be known before `run` hears of it, which then lets all pass who wait
        self._is_wanted = False
        if batch := self.buckets.next_batch():
            self._sent_at = self._clock()
            answers.n_wanted = 2 * len(batch)
            transport.write(command(self._sha, batch))

    def _heard(self, found: list[int]) -> None:
        self.buckets.heard(found)
        if self._is_wanted:
            self.wake()

    # --- the connection -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever."""
        from redis.exceptions import RedisError

        pause_s = FIRST_PAUSE_S
        while True:
            connection = new_connection(self._url)
            was_up = False
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._open(connection)
                was_up = True
                pause_s = FIRST_PAUSE_S
                log.info("rate limits: Redis at %s answers", self.shown)
                self.buckets.up()
                await self._until_it_ends()
            except (RedisError, OSError, TimeoutError) as error:
                self._log.warning(
                    "lost" if was_up else "down",
                    "rate limits: Redis at %s %s, so each lbproxy limits by itself: %s",
                    self.shown,
                    "is lost" if was_up else "can't be asked",
                    str(error) or "it does not answer",
                )
            finally:
                self._answers = self._transport = None
                self.buckets.down()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    async def _open(self, connection: AbstractConnection) -> None:
        """Connect, and take the connection over from redis-py."""
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_packed_command(packed([b"SCRIPT", b"LOAD", SCRIPT.encode()]), check_health=False)
        self._sha = await connection.read_response()
        writer = connection._writer
        if writer is None:
            raise Ended("it closed the connection")
        self._answers = Answers(self._heard, asyncio.get_running_loop().create_future())
        self._transport = writer.transport
        self._transport.set_protocol(self._answers)
        self._is_due = False
        self._sent_at = 0.0

    async def _until_it_ends(self) -> None:
        answers = self._answers
        assert answers is not None  # it was just opened
        while not answers.ended.done():
            await asyncio.wait((answers.ended,), timeout=DEAD_S / 4)
            if answers.n_wanted and self._clock() - self._sent_at > DEAD_S:
                raise TimeoutError
        raise Ended(answers.ended.result())


def new_connection(url: str) -> AbstractConnection:
    """A connection as the URL says, not open yet."""
    from redis.asyncio.connection import ConnectionPool

    pool = ConnectionPool.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=None, protocol=2)
    made: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return made
