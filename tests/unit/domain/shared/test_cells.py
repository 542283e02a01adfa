"""The guard of a worker that has its books to itself lets everybody in."""

from __future__ import annotations

from lbproxy.domain.shared.cells import Guard


def test_nobody_is_kept_out() -> None:
    guard = Guard()
    assert not guard.enter() and not guard.enter()
    guard.leave()
