"""The connection to Redis that rate limits ask: one for each process and URL, used for one batch after the other.

redis-py makes it (addresses, passwords, TLS) and reads answers. It is there only with `pip install lbproxy[redis]`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from lbproxy.control.fleet.buckets import FleetBuckets, Known
from lbproxy.telemetry.log import ThrottledLog

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

log = logging.getLogger("lbproxy.control")

CONNECT_S: Final = 1.0
DEAD_S: Final = 1.0  # without an answer: the connection is not used any more
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


class RedisLink:
    """See the module. `buckets` is what asks it. Call `run` as a task: it connects, again and again.

    make: makes a connection that is not open yet.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        *,
        make: Callable[[str], AbstractConnection] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shown = shown_url(url)
        self._url = url
        self._make = make or new_connection
        self._clock = clock
        self._log = ThrottledLog(log, 10.0)
        self._wanted = asyncio.Event()
        self._next_at = 0.0
        self.buckets = FleetBuckets(self, timeout_s, clock)

    def wake(self) -> None:
        """See Line."""
        self._wanted.set()

    def later(self, delay_s: float, callback: Callable[[list[Known]], None], batch: list[Known]) -> object:
        """See Line."""
        return asyncio.get_running_loop().call_later(delay_s, callback, batch)

    async def run(self) -> None:
        """For ever."""
        from redis.exceptions import RedisError

        pause_s = FIRST_PAUSE_S
        while True:
            connection = self._make(self._url)
            was_up = False
            try:
                async with asyncio.timeout(CONNECT_S):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    sha = await self._call(connection, packed([b"SCRIPT", b"LOAD", SCRIPT.encode()]))
                was_up = True
                pause_s = FIRST_PAUSE_S
                log.info("rate limits: Redis at %s answers", self.shown)
                self.buckets.up()
                await self._serve(connection, sha)
            except (RedisError, OSError, TimeoutError) as error:
                self._log.warning(
                    "lost" if was_up else "down",
                    "rate limits: Redis at %s %s, so each lbproxy limits by itself: %s",
                    self.shown,
                    "is lost" if was_up else "can't be asked",
                    str(error) or "it does not answer",
                )
            finally:
                self.buckets.down()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    async def _serve(self, connection: AbstractConnection, sha: bytes) -> None:
        while True:
            await self._wanted.wait()
            if (early_s := self._next_at - self._clock()) > 0.0:
                await asyncio.sleep(early_s)
            self._wanted.clear()
            if batch := self.buckets.next_batch():
                self._next_at = self._clock() + PACE_S
                self.buckets.heard(await self._call(connection, command(sha, batch)))

    async def _call(self, connection: AbstractConnection, data: bytes) -> Any:
        async with asyncio.timeout(DEAD_S):
            await connection.send_packed_command(data, check_health=False)
            return await connection.read_response()


def new_connection(url: str) -> AbstractConnection:
    """A connection as the URL says, not open yet."""
    from redis.asyncio.connection import ConnectionPool

    pool = ConnectionPool.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=None)
    made: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return made
