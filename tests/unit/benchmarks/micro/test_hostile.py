"""The hostile heads are what their names say, and the program says whether one of them is too dear."""

from __future__ import annotations

import random

import pytest

from benchmarks.micro import hostile
from lbproxy.protocol.http1 import HeadError, parse_request_head


@pytest.mark.parametrize("name", ["real", *hostile.HOSTILE])
def test_each_is_a_head_that_is_read_to_its_end(name: str) -> None:
    make = hostile.HOSTILE.get(name, hostile.real)
    raw = make(random.Random(1))
    assert raw != make(random.Random(2)) and len(raw) <= 32 * 1024
    if name.startswith("refused"):
        with pytest.raises(HeadError) as caught:
            parse_request_head(raw, max_fields=100)
        assert caught.value.fault.word == "bad_request"
    else:
        assert parse_request_head(raw, max_fields=100).host == "127.0.0.1:5000"


def test_all_are_measured() -> None:
    usual, others = hostile.measure(1, 1)
    assert usual > 0 and list(others) == list(hostile.HOSTILE) and min(others.values()) > 0


@pytest.mark.parametrize(("cost", "status"), [(1.4, 0), (1.6, 1)])
def test_one_that_is_too_dear_is_told(cost: float, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "measure", lambda count, rounds: (10.0, {"a": 1.0, "b": 10.0 * cost}))
    assert hostile.main() == status
