"""Many connections at once, and somebody else's requests meanwhile, measured so that a busy machine does not matter."""

from __future__ import annotations

import contextlib
import select
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import post

HARD_LIMIT_S = 10.0  # nobody waits that long for a small answer, whatever the machine does besides

MEDIAN_S = 0.1  # half of all requests take less, on a machine with ten programs to a core too; without them 0.3 ms


@dataclass
class Others:
    """A client that behaves. It asks through lbproxy and directly by turns, in one thread, so that what this machine
    and this test cost is in both: the direct requests are the control."""

    lb: LbProxy
    listener: str
    origin: Origin
    through_s: list[float] = field(default_factory=list)
    direct_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    problem: str = ""

    def run(self, stop: threading.Event) -> None:
        ports = (self.lb.port(self.listener), self.origin.port)
        with Client(ports[0], timeout_s=60) as through, Client(ports[1], timeout_s=60) as direct:
            while not stop.wait(0.002):
                for client, took in ((through, self.through_s), (direct, self.direct_s)):
                    started = time.monotonic()
                    assert client.ask(post("/normal", b"hello")).body == b"5\n", "a wrong answer"
                    took.append(time.monotonic() - started)

    def check(self) -> None:
        """Every request was answered, and lbproxy held none of them up."""
        assert not self.problem, self.problem
        assert len(self.through_s) > 2
        through, direct = statistics.median(self.through_s), statistics.median(self.direct_s)
        assert through < MEDIAN_S + 5 * direct, f"median {through * 1e3:.1f} ms, directly {direct * 1e3:.1f} ms"
        worst, control = max(self.through_s), max(self.direct_s)
        assert worst < HARD_LIMIT_S + 3 * control, f"a request took {worst:.2f} s, directly at most {control:.2f} s"


@contextlib.contextmanager
def others(lb: LbProxy, listener: str, origin: Origin) -> Iterator[Others]:
    """Somebody else is served meanwhile; checked at the end."""
    normal, stop = Others(lb, listener, origin), threading.Event()

    def run() -> None:
        try:
            normal.run(stop)
        except Exception as error:  # shown by `check`
            normal.problem = repr(error)

    thread = threading.Thread(target=run)
    began = lb.cpu_s()
    thread.start()
    try:
        yield normal
    finally:
        stop.set()
        thread.join()
    normal.cpu_s = lb.cpu_s() - began
    normal.check()


class Crowd:
    """Connections that are watched by one poll; closed at the end, whatever the test finds."""

    def __init__(self, connect: Callable[[int | None], Client]) -> None:
        self._connect = connect
        self._poller = select.poll()
        self._by_fd: dict[int, Client] = {}
        self.everybody: list[Client] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.everybody:
            client.close()

    def gather(self, *greetings: bytes, receive_buffer: int | None = None) -> list[Client]:
        """One more client for each greeting, which it sends as soon as it is connected (b"": nothing)."""
        clients = []
        for greeting in greetings:
            client = self._connect(receive_buffer)
            self.everybody.append(client)
            clients.append(client)
            self._by_fd[client.sock.fileno()] = client
            self._poller.register(client.sock.fileno(), select.POLLIN)
            if greeting:
                client.send(greeting)
        return clients

    @property
    def live(self) -> list[Client]:
        return list(self._by_fd.values())

    def send(self, data: bytes) -> None:
        """The same bytes from each client that is still connected.

        First they read what is here: where a test stands still for longer than lbproxy lingers after an answer, these
        bytes meet a reset, which takes along what was not read.
        """
        for fd, _ in self._poller.poll(0):
            self._by_fd[fd].stream.fill()
        for client in self.live:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sock.send(data)

    def watch(self, for_s: float) -> list[Client]:
        """Wait for that long at most; the clients whose connection ended meanwhile."""
        ended = []
        for fd, _ in self._poller.poll(for_s * 1000):
            client = self._by_fd[fd]
            if not client.stream.fill():
                self._poller.unregister(fd)
                del self._by_fd[fd]
                ended.append(client)
        return ended

    def leave(self) -> None:
        """Everybody who is still connected goes."""
        for fd, client in self._by_fd.items():
            self._poller.unregister(fd)
            client.close()
        self._by_fd.clear()

    def drip(self, data: bytes, every_s: float, at_most_s: float) -> dict[Client, float]:
        """The bytes from each client every so often; when each of them was closed by lbproxy, in seconds from now."""
        started = dripped_at = time.monotonic()
        closed: dict[Client, float] = {}
        while self._by_fd and time.monotonic() - started < at_most_s:
            if time.monotonic() - dripped_at >= every_s:
                self.send(data)
                dripped_at = time.monotonic()
            for client in self.watch(0.05):
                closed[client] = time.monotonic() - started
        return closed
