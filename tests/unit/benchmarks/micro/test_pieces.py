"""Each piece still does the work that its name says, so that its time means something."""

import functools
import json

from benchmarks.micro.__main__ import all_pieces
from benchmarks.micro.bodies import BODIES
from benchmarks.micro.timing import Piece, cost_us
from lbproxy.domain.server import Server
from lbproxy.protocol.http1 import RequestHead, ResponseHead


@functools.cache  # to build them takes a second
def results() -> dict[str, object]:
    return {piece.name: piece.call() for piece in all_pieces()}


def test_names_are_unique() -> None:
    names = [piece.name for piece in all_pieces()]
    assert len(names) == len(set(names))


def test_heads_are_parsed_and_the_memo_hits() -> None:
    found = results()
    parsed, remembered = found["head: request, parsed"], found["head: found in a memo (copy, hash, look up)"]
    response = found["head: response, parsed"]
    assert isinstance(parsed, RequestHead) and parsed.content_length == 31
    assert isinstance(remembered, RequestHead) and remembered.path == "/predict"
    assert isinstance(response, ResponseHead) and response.content_length == 22


def test_log_lines_are_whole() -> None:
    found = results()
    line = found["access log: json line"]
    assert isinstance(line, str)
    assert json.loads(line)["target"] == "/predict"
    assert '"POST /predict HTTP/1.1" 200 22' in str(found["access log: common line"])
    assert str(found["access log: combined line"]).endswith('"python-requests/2.32.3"')


def test_bodies_of_a_kibibyte_have_their_model() -> None:
    assert all(1000 <= len(body) <= 1100 for _, body in BODIES)
    found = {name: result for name, result in results().items() if name.startswith("body: 1 KiB")}
    assert len(found) == 2 * len(BODIES)
    assert set(found.values()) == {b"llama-3"}
    assert results()["body: a pattern"] is True
    assert results()["split: by chance"] == 0


def test_every_pick_yields_a_server() -> None:
    picked = [result for name, result in results().items() if name.startswith("pick: ")]
    assert picked
    assert all(isinstance(server, Server) for server in picked)


def test_costs_are_per_call() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    cost = cost_us(Piece("count", call), target_s=0.001)
    assert calls > 5
    assert 0 < cost < 1000
