"""The fixed trace: requests through the protocol objects of a client and of a server, without kernel or event loop.

python -P benchmarks/installed.py benchmarks.instructions.trace MARKS

MARKS is the library that was compiled from marks.c. Each kind has a client, a server and memos of its own, and requests
that are not counted before those that are. http2.py has those of HTTP/2, workers.py those of one of several workers,
closing.py those of clients that close.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Final

from benchmarks.instructions import closing, http2, workers
from benchmarks.instructions.kinds import CLOSE, COUNTED, HTTP1, HTTP2, TCP, WARM, WORKERS
from benchmarks.micro.hot_path import BODY, HEAD, RESPONSE, build
from benchmarks.traffic import Traffic
from lbproxy.process.tuning import tune_gc

_SAME: Final = HEAD + b"\r\n" + BODY


def make_pairs(kind: str, traffic: Traffic) -> list[tuple[bytes, bytes]]:
    """Requests with their answers."""
    return [
        (
            traffic.request() if kind == "real" else _SAME,
            RESPONSE if kind == "repeated" else traffic.answer(),
        )
        for _ in range(WARM + COUNTED)
    ]


def main() -> None:
    marks = ctypes.CDLL(sys.argv[1])
    loop = asyncio.new_event_loop()
    traffic = Traffic(7)
    prepared = [(kind, make_pairs(kind, traffic), *build(loop)) for kind in HTTP1]
    shared = [(kind, http2.make_turns(kind), http2.build(loop)) for kind in HTTP2]
    several = [(kind, make_pairs(kind, traffic), workers.build(loop, kind)) for kind in WORKERS]
    door, closings = closing.build(loop), [traffic.answer() for _ in range(WARM + COUNTED)]
    tcp_door = closing.build_tcp(loop)
    tune_gc()
    marks.start()
    for kind, pairs, client, server, writer in prepared:
        end_turn = client.services.poller.turn_end.flush
        for number, (request, answer) in enumerate(pairs):
            if number == WARM:
                marks.zero()
            client.data_received(request)
            end_turn()  # the request leaves before it is answered
            server.data_received(answer)
        marks.dump(kind.encode())
        if server.n_requests != len(pairs):
            raise SystemExit(f"{kind}: the server saw {server.n_requests} requests of {len(pairs)}")
        writer.close(1.0)
    for kind, turns, pair in shared:
        end_turn = pair.client.services.poller.turn_end.flush
        for number, (requests, answers) in enumerate(turns):
            if number * http2.STREAMS == WARM:
                marks.zero()
            pair.client.data_received(requests)
            end_turn()
            pair.server.octets_came(answers)
            end_turn()
        marks.dump(kind.encode())
        if pair.server.n_requests != WARM + COUNTED or pair.server.streams:
            raise SystemExit(
                f"{kind}: the server saw {pair.server.n_requests} requests, {len(pair.server.streams)} hang"
            )
        pair.writer.close(1.0)
    for kind, pairs, plane in several:
        for number, (request, answer) in enumerate(pairs):
            if number == WARM:
                marks.zero()
            plane.ask(request, answer)
        marks.dump(kind.encode())
        if plane.n_requests != len(pairs):
            raise SystemExit(f"{kind}: the servers saw {plane.n_requests} requests of {len(pairs)}")
        plane.writer.close(1.0)
    for first in range(0, WARM + COUNTED, closing.AT_ONCE):
        if first == WARM:
            marks.zero()
        door.turn(closings[first : first + closing.AT_ONCE], marks.toggle)
    marks.dump(CLOSE.encode())
    if door.n_requests != len(closings):
        raise SystemExit(f"{CLOSE}: the servers saw {door.n_requests} requests of {len(closings)}")
    door.close()
    for first in range(0, WARM + COUNTED, closing.AT_ONCE):
        if first == WARM:
            marks.zero()
        tcp_door.turn(closings[first : first + closing.AT_ONCE], marks.toggle)
    marks.dump(TCP.encode())
    tcp_door.close()


if __name__ == "__main__":
    main()
