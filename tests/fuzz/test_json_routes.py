"""Routes by body against the standard parser: the same verdict, or no match, and never an error for the client.

`LBPROXY_JSON_DOCUMENTS=100000 pytest tests/fuzz/test_json_routes.py` tries as many documents.
"""

from __future__ import annotations

import itertools
import os
import random

from lbproxy.dataplane.exchange.body_tape import BodyTape
from lbproxy.dataplane.exchange.choosing import Choosing
from lbproxy.dataplane.exchange.prepare import prepare
from tests.fuzz.json_documents import CONDITIONS, Document, document
from tests.support.fake_transport import FakeLb, ok, post, status_of

N = int(os.environ.get("LBPROXY_JSON_DOCUMENTS", "1000"))
N_REQUESTS = max(40, N // 100)
WANTED = [", ".join(f"{pointer}: {wanted!r}" for pointer, wanted in each) for each in CONDITIONS]
ROUTES = "\n".join(f"      - {{match: {{json: {{{text}}}}}, pool: p{number}}}" for number, text in enumerate(WANTED))
CONFIG = f"""
access_log: {{path: /dev/null}}
listeners:
  - name: web
    bind: "127.0.0.1:5000"
    routes:
{ROUTES}
      - {{pool: rest}}
pools:
""" + "".join(
    f'  {name}: {{servers: ["127.0.0.1:{port}"], health_check: off}}\n'
    for port, name in enumerate(("p0", "p1", "p2", "rest"), 9001)
)


def cuts_of(rng: random.Random, size: int) -> list[int]:
    """Where a body is cut: nowhere, somewhere, or at every octet."""
    kind = rng.random()
    if kind < 0.1 and size < 200:
        return list(range(1, size))
    if kind < 0.5:
        return sorted({rng.randrange(1, size) for _ in range(rng.randrange(1, 6))}) if size > 1 else []
    return []


def route_of(lb: FakeLb, data: bytes, cuts: list[int]) -> int:
    """Which route takes such a body; 3 for none of those by body."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(data)
    prepared = prepare(lb.listener.runtime, head, is_trusted=False, log_format=None, local_host="h")
    if prepared.fork is None:
        assert not data
        return 3
    choosing = Choosing(prepared.fork, "192.0.2.1")
    tape = BodyTape(lb.services.pressure)
    for start, end in itertools.pairwise([0, *cuts, len(data)]):
        piece, is_done = data[start:end], end == len(data)
        tape.add(piece, is_done=is_done)
        if choosing.advance(tape, piece, is_done=is_done):
            tape.drop()
            return choosing.at
    raise AssertionError("its body is whole, and its route is not known")


def check(made: Document, route: int) -> None:
    """It holds by the standard parser, too, and where nothing is doubtful it is the same."""
    data = made.data if len(made.data) < 1000 else made.data[:500] + b"..." + made.data[-200:]
    if made.found != (False,) * 3 or made.is_whole:  # else the parser refuses it, and so may every server
        assert (*made.found, True)[route], f"route {route} has {data!r}, which {made.found} says no to"
    if made.is_whole and not made.has_doubles:
        first = made.found.index(True) if True in made.found else 3
        assert route == first, f"{data!r} goes to {route}, and belongs to {first}"


def test_the_verdict_is_that_of_the_standard_parser_or_no_match() -> None:
    rng = random.Random(20)
    taken = [0] * 4
    with FakeLb(CONFIG) as lb:
        for _ in range(N):
            made = document(rng)
            route = route_of(lb, made.data, [])
            cuts = cuts_of(rng, len(made.data))
            if cuts:
                assert route_of(lb, made.data, cuts) == route, (made.data[:500], cuts)
            check(made, route)
            taken[route] += 1
    assert min(taken) > N // 100, taken


def test_whatever_comes_is_no_error_for_the_client() -> None:
    rng = random.Random(21)
    with FakeLb(CONFIG) as lb:
        for _ in range(N_REQUESTS):
            made = document(rng)
            data, cuts = made.data, cuts_of(rng, len(made.data))
            pieces = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)]) if start < end]
            client = lb.connect()
            if rng.random() < 0.5:
                head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.send(head, *[b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces], b"0\r\n\r\n")
            else:
                client.send(post(data)[: -len(data) or None], *pieces)
            if lb.loop.dials:
                lb.accept()
            server = next(item for item in lb.servers if item.is_open and item.got())
            server.send(ok())
            assert status_of(client.got()) == 200
            check(made, int(str(lb.log[-1]["server"])[-1]) - 1)
            lb.writer.lines.clear()
            client.reset()
            lb.servers = [item for item in lb.servers if item.is_open]
    assert lb.listener.n_connections == 0
