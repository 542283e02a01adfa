"""How a body is read: judged only while lbproxy reads, and in large pieces where that pays."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lbproxy.dataplane.client.body_intake import BodyIntake
from lbproxy.dataplane.client.upload_rate import GRACE_S, UploadRate
from lbproxy.dataplane.net.bulk import MUCH_BYTES, BulkReader
from lbproxy.protocol.body import LengthReader


class Owner:
    """A protocol object and its transport in one."""

    def __init__(self) -> None:
        self.protocols: list[object] = []
        self.transport = cast(Any, self)

    def set_protocol(self, protocol: object) -> None:
        self.protocols.append(protocol)


@pytest.mark.parametrize("stopped_s", [0.0, 5.0])
def test_time_in_which_it_is_not_read_does_not_count(stopped_s: float) -> None:
    intake = BodyIntake(LengthReader(1000), UploadRate(10, 100.0))
    intake.stop(101.0)
    intake.go(101.0 + stopped_s)
    late = 100.0 + GRACE_S + stopped_s
    assert not intake.is_too_slow(50, late)
    assert intake.is_too_slow(50, late + 0.1)
    assert not intake.is_too_slow(200, late + 0.1)


def test_without_a_rate_nothing_is_too_slow() -> None:
    intake = BodyIntake(LengthReader(1000), None)
    intake.stop(1.0)
    intake.go(2.0)
    assert not intake.is_too_slow(0, 1e9)


@pytest.mark.parametrize(("left", "is_grown"), [(MUCH_BYTES + 1, True), (MUCH_BYTES, False)])
def test_large_pieces_for_what_is_large_until_it_ends(left: int, is_grown: bool) -> None:
    owner = Owner()
    intake = BodyIntake(LengthReader(left), None)
    for _ in range(2):
        intake.grow(cast(Any, owner), lambda: None)
    assert [type(protocol) for protocol in owner.protocols] == [BulkReader] * is_grown
    for _ in range(2):
        intake.end_bulk()
    assert owner.protocols[1:] == [owner] * is_grown
