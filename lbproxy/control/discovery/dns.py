"""Servers from DNS: names in `servers` become one server per address, looked up again and again.

The resolver of the C library blocks, at worst for half a minute, so each look-up has a daemon thread. MAX_THREADS work
at a time; who comes later waits for a turn. A look-up that is late (TIMEOUT_S) gives its turn to the next and goes on:
there are MAX_LATE of those at most, so that a resolver that hangs neither collects threads nor holds up the names that
it could answer. A name has one look-up under way at most. Rounds begin at different moments of the interval for
different names.

A failed or empty look-up changes nothing: the last good answer stays in use. A name that never had one has no server,
and stands in the pool's `names` with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from lbproxy.address import Address
from lbproxy.config.model import ServerSpec
from lbproxy.control.discovery.source import MIN_GAP_S, Answer, Found, Pause, Polled, Trouble, pause
from lbproxy.domain.names import Name

TIMEOUT_S = 2.0
MAX_THREADS = 8
MAX_LATE = 56

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text. Raises OSError."""


class ThreadResolver:
    """getaddrinfo in daemon threads, which do not delay the end of the process as executor threads do.

    max_threads look-ups have their turn at once, for timeout_s each; max_late more may be at work beyond their time.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, max_threads: int = MAX_THREADS, max_late: int = MAX_LATE) -> None:
        self._timeout_s = timeout_s
        self._most = max_threads + max_late
        self._turns = asyncio.Semaphore(max_threads)
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """Addresses of `host`, after waiting for a turn. Raises OSError, TimeoutError included."""
        future = self._under_way.get(host)
        if future is not None:
            return await self._wait(future)
        async with self._turns:
            future = self._under_way.get(host)
            if future is None:
                if len(self._under_way) >= self._most:
                    raise TimeoutError(f"{len(self._under_way)} look-ups of other names hang")
                future = self._start(host)
            return await self._wait(future)

    async def _wait(self, future: asyncio.Future[list[str]]) -> list[str]:
        try:
            # A look-up that is late stays under way, so that a blocked resolver does not collect threads.
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None

    def _start(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._under_way[host] = future

        def finished(addresses: list[str], error: OSError | None) -> None:
            del self._under_way[host]
            if future.cancelled():
                return
            if error is None:
                future.set_result(addresses)
            else:
                future.set_exception(error)
                future.exception()  # seen: nobody may be waiting any more

        def look_up() -> None:
            addresses: list[str] = []
            error: OSError | None = None
            try:
                addresses = blocking_look_up(host)
            except OSError as caught:
                error = caught
            except UnicodeError:
                error = OSError(f"{host!r} is not a valid host name")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody wants the answer
                loop.call_soon_threadsafe(finished, addresses, error)

        threading.Thread(target=look_up, name=f"resolve:{host}", daemon=True).start()
        return future


def blocking_look_up(host: str) -> list[str]:
    """Addresses of a name, each once, IPv4 first. Raises OSError.

    `localhost` gives IPv4 only where there is some: servers bound to 127.0.0.1 would each get a dead twin ::1.
    """
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    v4 = [text for text in found if ":" not in text]
    if host.lower().rstrip(".") == "localhost" and v4:
        found = set(v4)
    return sorted(found, key=lambda text: (":" in text, int(ip_address(text.partition("%")[0])), text))


class NameSource(Polled):
    """One host name of a pool, with the specs that use it (a range of ports is several). Raises nothing.

    known: what people are told of it. phase: 0 to 1, the part of the interval after which the second round comes, to
    set this name apart from the others. count_failure: called for each look-up that failed.
    """

    kind = "dns"
    values_from = "file"
    rank = 2

    def __init__(
        self,
        known: Name,
        specs: Sequence[ServerSpec],
        interval_s: float,
        phase: float,
        resolve: Resolve,
        clock: Callable[[], float],
        count_failure: Callable[[], None],
        pause: Pause = pause,
    ) -> None:
        super().__init__(f"dns:{known.host}", f"DNS ({known.host})", pause)
        self.known = known
        self.specs = tuple(specs)
        known.servers = tuple(spec.name or str(spec.address) for spec in specs)
        self.interval_s = max(interval_s, MIN_GAP_S)
        self._phase = phase
        self._is_first = True
        self._resolve = resolve
        self._clock = clock
        self._count_failure = count_failure

    async def look(self) -> Answer:
        self.wait_s = self.interval_s * (self._phase if self._is_first else 1.0)
        self._is_first = False
        try:
            addresses = await self._resolve(self.known.host)
        except OSError as error:
            return self._no_answer(error.strerror or str(error))
        if not addresses:
            return self._no_answer("the answer holds no address")
        self.known.answered(len(addresses), self._clock())
        return [found_at(spec, ip) for spec in self.specs for ip in addresses]

    def _no_answer(self, why: str) -> Trouble:
        self._count_failure()
        self.known.failed(why, self._clock())
        return Trouble(why)

    def failed(self, why: str) -> str:
        return f"looking up {self.known.host} failed: {why}"

    def recovered(self, n_servers: int) -> str:
        return f"{self.known.host} resolves again, to {self.known.n_addresses} addresses"

    def gone(self) -> str:
        return f"{self.known.host} no longer has this address"

    def stays(self) -> str:
        return f"{self.known.host} has it"


def found_at(spec: ServerSpec, ip: str) -> Found:
    """The server that a spec with a host name has at one of its addresses; named `host:port/ip`."""
    return Found(
        Address(ip, spec.address.port),
        f"{spec.name or spec.address}/{ip}",
        spec.weight,
        spec.max_inflight,
        spec.backup,
        spec.address.host,
    )
