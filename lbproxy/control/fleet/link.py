"""The connection to Redis that rate limits ask: one for each process and URL, used for one batch after the other.

It speaks RESP by itself. A client library is made for who awaits the answer to each command: the task that does is most
of what a batch costs, and the library's transport is nobody else's to read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

from lbproxy.config.store_url import StoreTls, StoreUrl, read_store_url
from lbproxy.control.fleet.buckets import FleetBuckets, Known
from lbproxy.telemetry.log import ThrottledLog

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


def first_commands(url: StoreUrl) -> list[bytes]:
    """What is said on a new connection; the answer to the last is the name of the script."""
    commands = []
    if url.password or url.user:
        login = [url.user, url.password] if url.user else [url.password]
        commands.append(packed([b"AUTH", *[word.encode() for word in login]]))
    if url.db:
        commands.append(packed([b"SELECT", b"%d" % url.db]))
    commands.append(packed([b"SCRIPT", b"LOAD", SCRIPT.encode()]))
    return commands


def command(sha: bytes, batch: Sequence[Known]) -> bytes:
    """The call of the script for a batch."""
    words = [b"EVALSHA", sha, b"%d" % len(batch), *[known.name for known in batch]]
    for known in batch:
        limit = known.limit
        words += [b"%.3f" % (int(limit.interval) / 1e3), b"%.3f" % (int(limit.depth) / 1e3), b"%d" % known.wanted]
    return packed(words)


class Ended(OSError):
    """The connection is over, or what came on it can't be used."""


_VERIFY: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def tls_context(tls: StoreTls) -> ssl.SSLContext:
    """Raises OSError (of which ssl.SSLError is one) for files that can't be read or used."""
    made = ssl.create_default_context(cafile=tls.ca or None)
    made.check_hostname = tls.checks_name and tls.verify != "none"
    made.verify_mode = _VERIFY[tls.verify]
    if tls.cert:
        made.load_cert_chain(tls.cert, tls.key or None)
    return made


class Greeting(asyncio.Protocol):
    """Reads the answers to the first commands, each a line or one text. said: all of them; Ended if one of them is an
    error, or no answer of Redis."""

    def __init__(self, n_wanted: int, said: asyncio.Future[list[bytes]]) -> None:
        self.said = said
        self._n_wanted = n_wanted
        self._found: list[bytes] = []
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while not self.said.done():
            line, end, rest = self._data.partition(b"\r\n")
            if not end and len(line) <= MOST_LINE:
                return
            if line[:1] == b"$" and line[1:].isdigit():
                length = int(line[1:])
                if length > MOST_LINE:
                    self._fail(f"it says {line[:200].decode(errors='replace')}")
                    return
                if len(rest) < length + 2:
                    return
                line, rest = rest[:length], rest[length + 2 :]
            elif line[:1] != b"+":
                self._fail(f"it says {line[:200].decode(errors='replace')}")
                return
            self._data = rest
            self._found.append(line)
            if len(self._found) == self._n_wanted:
                self.said.set_result(self._found)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "it closed the connection")

    def _fail(self, why: str) -> None:
        if not self.said.done():
            self.said.set_exception(Ended(why))


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
        self._at = read_store_url(url)
        self._tls: ssl.SSLContext | None = None
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
        pause_s = FIRST_PAUSE_S
        while True:
            was_up = False
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._open()
                was_up = True
                pause_s = FIRST_PAUSE_S
                log.info("rate limits: Redis at %s answers", self.shown)
                self.buckets.up()
                await self._until_it_ends()
            except OSError as error:  # TimeoutError too
                self._tls = None  # its files may be others now
                self._log.warning(
                    "lost" if was_up else "down",
                    "rate limits: Redis at %s %s, so each lbproxy limits by itself: %s",
                    self.shown,
                    "is lost" if was_up else "can't be asked",
                    _words(error),
                )
            finally:
                if self._transport is not None:
                    self._transport.abort()
                self._answers = self._transport = None
                self.buckets.down()
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    async def _open(self) -> None:
        """Connect, and say who we are."""
        at, loop = self._at, asyncio.get_running_loop()
        commands = first_commands(at)
        said: asyncio.Future[list[bytes]] = loop.create_future()
        greeting = Greeting(len(commands), said)
        if at.path:
            self._transport, _ = await loop.create_unix_connection(lambda: greeting, at.path)
        else:
            if at.tls is not None and self._tls is None:
                self._tls = tls_context(at.tls)
            self._transport, _ = await loop.create_connection(lambda: greeting, at.host, at.port, ssl=self._tls)
        self._transport.write(b"".join(commands))
        self._sha = (await said)[-1]
        self._answers = Answers(self._heard, loop.create_future())
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


def _words(error: OSError) -> str:
    """What went wrong, without the address, which is said before."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, (ssl.SSLError, Ended)) or not error.errno or error.errno < 0:
        return error.strerror or str(error) or "it does not answer"
    return os.strerror(error.errno)
