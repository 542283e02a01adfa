"""The requests of HTTP/2 in the trace: as many as are counted, whole, and new where they say so."""

from __future__ import annotations

import pytest

from benchmarks.instructions.http2 import CASE_OF, STREAMS, make_turns
from benchmarks.instructions.kinds import COUNTED, HTTP2, WARM
from lbproxy.protocol.h2.codes import DATA, FRAME_HEADER, HEADERS


def frames_of(octets: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while octets:
        end = FRAME_HEADER + int.from_bytes(octets[:3], "big")
        found.append((octets[3], int.from_bytes(octets[5:9], "big"), octets[FRAME_HEADER:end]))
        octets = octets[end:]
    return found


@pytest.mark.parametrize("kind", HTTP2)
def test_what_both_ends_read(kind: str) -> None:
    turns = make_turns(kind)
    assert set(CASE_OF) == set(HTTP2) and len(turns) * STREAMS == WARM + COUNTED and WARM % STREAMS == 0
    asked = [frame for requests, _ in turns for frame in frames_of(requests)]
    answered = [frame for _, answers in turns for frame in frames_of(answers)]
    numbers = list(range(1, 2 * (WARM + COUNTED), 2))
    assert [number for what, number, _ in asked if what == HEADERS] == numbers
    assert [number for what, number, _ in answered if what == DATA] == numbers
    blocks = [block for what, _, block in asked if what == HEADERS][WARM:]
    assert len(set(blocks)) == (1 if kind == "h2" else COUNTED)
    n_heads = sum(what == HEADERS for what, _, _ in answered)
    assert n_heads == len(numbers) * (2 if kind == "grpc" else 1)
