"""Which loads are believed."""

from __future__ import annotations

import pytest

from benchmarks.h2.cases import CASES, FILE_BYTES
from benchmarks.h2.runner import check_load
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.wrk import Load


def load(requests: int = 10, n_bytes: int = 10 * FILE_BYTES, **errors: int) -> Load:
    return Load(requests, 1_000_000, n_bytes, 1, 2, errors)


def test_whole_answers_are() -> None:
    check_load(load(), CASES["file_h1"], "lbproxy")
    check_load(load(n_bytes=0), CASES["grpc_1x32"], "lbproxy")  # whose answers have no body


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (load(reset=1), "1 reset"),
        (load(requests=0), "no request"),
        (load(n_bytes=10), "bodies alone"),
    ],
)
def test_others_are_not(found: Load, says: str) -> None:
    with pytest.raises(BenchmarkError, match=says):
        check_load(found, CASES["file_h1"], "lbproxy")
