"""The load generator, a process of its own: requests at their times over kept connections.

python -m benchmarks.latency.generator PLAN

PLAN and what is printed are JSON (`Plan`, `Outcome`). One epoll and one timer instead of an event loop, because what it
needs for a request limits the rate. Where no connection is idle when a request is due, it waits here, and its latency
has begun.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from benchmarks.latency.schedule import Figures, due_times, figures
from benchmarks.timerfd import Timer
from benchmarks.traffic import Traffic

_PREPARED: Final = 4096  # heads; each is sent many times, with another X-Request-ID
_FIELD: Final = b"X-Request-ID: "
_MOST_A_SECOND: Final = 100_000  # of a plan without a rate
_LEAD_S: Final = 0.05
_PATIENCE_S: Final = 2.0  # after the last request was due
_CONNECT_S: Final = 5.0
_OK: Final = b"HTTP/1.1 200 "
_END: Final = b'"}'  # of the backend's answer; nothing before it has it


@dataclass(frozen=True, slots=True)
class Plan:
    """rate: requests a second, 0 for as many as the connections can. warm_up_s: who is due before does not count."""

    port: int
    rate: float
    seconds: float
    warm_up_s: float
    connections: int
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """requests_per_s: answers over the whole run. unanswered: share of requests without an answer _PATIENCE_S after the
    last was due. waited: share for which no connection was idle. busy: the generator's share of one core. wall_s: until
    the last answer.
    """

    figures: Figures
    requests_per_s: float
    unanswered: float
    waited: float
    busy: float
    wall_s: float


class LoadError(Exception):
    """A request was answered with something else than a whole 200."""


def main() -> None:
    try:
        outcome = drive(Plan(**json.loads(sys.argv[1])))
    except (OSError, LoadError) as error:
        raise SystemExit(f"load generator: {error}") from None
    print(json.dumps(dataclasses.asdict(outcome)))


def parse_outcome(text: str) -> Outcome:
    document = json.loads(text)
    return Outcome(**{**document, "figures": Figures(**document["figures"])})


def drive(plan: Plan) -> Outcome:
    """Send all requests of the plan. Raises LoadError at the first answer that is no 200."""
    offsets = [0.0] * int(_MOST_A_SECOND * plan.seconds)
    if plan.rate:
        offsets = due_times(plan.rate, plan.seconds, plan.seed)
    heads = prepare(Traffic(plan.seed), f"{plan.seed:08x}-{plan.port:x}-", min(_PREPARED, len(offsets)))
    address = ("127.0.0.1", plan.port)
    connections = [socket.create_connection(address, timeout=_CONNECT_S) for _ in range(plan.connections)]
    timer = Timer()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return _drive(plan, offsets, heads, connections, timer)
    finally:
        gc.enable()
        gc.unfreeze()
        timer.close()
        for connection in connections:
            connection.close()


def prepare(traffic: Traffic, run: str, count: int) -> list[tuple[bytes, bytes]]:
    """Requests in two pieces, between which a number belongs. X-Request-ID is `run` and that number."""
    made = []
    for _ in range(count):
        before, field, after = traffic.request().partition(_FIELD)
        made.append((before + field + run.encode(), after[after.index(b"\r\n") :]))
    return made


def _drive(
    plan: Plan,
    offsets: list[float],
    heads: list[tuple[bytes, bytes]],
    connections: list[socket.socket],
    timer: Timer,
) -> Outcome:
    """The loop. Everything is a local variable, as that is what is cheap."""
    clock = time.monotonic
    epoll = select.epoll()
    epoll.register(timer.fd, select.EPOLLIN | select.EPOLLET)  # edges: nobody need read it
    sends, receives = {}, {}  # by descriptor
    current: dict[int, int] = {}  # the number of the request that is under way there
    partial: dict[int, bytes] = {}  # the beginning of its answer
    for connection in connections:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(connection.fileno(), select.EPOLLIN)
        sends[connection.fileno()] = connection.send
        receives[connection.fileno()] = connection.recv
    idle = deque(sends)
    total = len(offsets)
    sent = [0.0] * total
    answered = [0.0] * total
    has_waited = bytearray(total)
    number = done = 0
    armed = -1
    is_blocked = False  # what is due waits for a connection
    cpu = time.process_time()
    start = clock() + _LEAD_S
    due = [start + offset for offset in offsets]
    ends = start + plan.seconds
    try:
        while done < total:
            now = clock()
            while number < total and idle and due[number] <= now:
                fd = idle.popleft()
                before, after = heads[number % len(heads)]
                sent[number] = now
                has_waited[number] = is_blocked
                sends[fd](b"%b%08x%b" % (before, number, after))
                current[fd] = number
                number += 1
                now = clock()
            is_blocked = number < total and due[number] <= now
            if number < total and not is_blocked and armed != number:
                timer.arm(due[number])
                armed = number
            events = epoll.poll(1.0)
            now = clock()
            if now > ends + _PATIENCE_S:
                break
            for fd, _ in events:
                receive = receives.get(fd)
                if receive is None:
                    continue
                data = receive(65536)
                if fd in partial:
                    data = partial.pop(fd) + data
                if not data.startswith(_OK) or fd not in current:
                    raise LoadError(f"an answer was {data[:100]!r}")
                if not data.endswith(_END):
                    partial[fd] = data
                    continue
                answered[current.pop(fd)] = now
                idle.append(fd)
                done += 1
            if now > ends and not plan.rate:
                total = number
    finally:
        epoll.close()
    now = clock()
    wall_s = now - start
    has_waited[number:total] = b"\1" * (total - number)  # and were never sent
    return Outcome(
        # Who has no answer yet has waited until now, at least.
        figures=figures(
            due[:total],
            [at or now for at in sent[:total]],
            [at or now for at in answered[:total]],
            has_waited,
            plan.warm_up_s,
        ),
        requests_per_s=done / wall_s,
        unanswered=(total - done) / total,
        waited=sum(has_waited) / total,
        busy=(time.process_time() - cpu) / wall_s,
        wall_s=wall_s,
    )


if __name__ == "__main__":
    main()
