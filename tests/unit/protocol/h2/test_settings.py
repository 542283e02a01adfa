"""Settings of both ends."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2.codes import FLOW_CONTROL_ERROR, NO_ERROR, PROTOCOL_ERROR
from lbproxy.protocol.h2.settings import UNLIMITED, OwnSettings, PeerSettings, settings_of


def test_what_each_end_says() -> None:
    own = OwnSettings(streams=7, head_bytes=9, stream_window=70_000, websocket=True)
    assert settings_of(own, is_server=True) == [(4, 70_000), (6, 9), (3, 7), (8, 1)]
    assert settings_of(own, is_server=False) == [(4, 70_000), (6, 9), (2, 0)]
    assert (8, 1) not in settings_of(OwnSettings(), is_server=True)


def test_what_holds_before_the_peer_has_said_anything() -> None:
    """Section 6.5.2."""
    peer = PeerSettings()
    assert (peer.header_table_size, peer.initial_window, peer.max_frame_size) == (4_096, 65_535, 16_384)
    assert peer.max_concurrent_streams == peer.max_header_list_size == UNLIMITED
    assert not peer.enable_connect_protocol
    assert not peer.is_known


@pytest.mark.parametrize(
    ("identifier", "value", "from_server", "code"),
    [
        (1, 0, False, NO_ERROR),
        (2, 0, True, NO_ERROR),
        (2, 1, False, NO_ERROR),
        (2, 1, True, PROTOCOL_ERROR),
        (2, 2, False, PROTOCOL_ERROR),
        (3, 0, True, NO_ERROR),
        (4, 2**31 - 1, True, NO_ERROR),
        (4, 2**31, True, FLOW_CONTROL_ERROR),
        (5, 16_384, True, NO_ERROR),
        (5, 16_383, True, PROTOCOL_ERROR),
        (5, 2**24 - 1, True, NO_ERROR),
        (5, 2**24, True, PROTOCOL_ERROR),
        (8, 0, True, NO_ERROR),
        (8, 2, True, PROTOCOL_ERROR),
        (99, 2**32 - 1, True, NO_ERROR),
    ],
)
def test_values_that_are_allowed(identifier: int, value: int, from_server: bool, code: int) -> None:
    assert PeerSettings().set(identifier, value, from_server) == code


def test_extended_connect_is_not_taken_back() -> None:
    """RFC 8441 section 3."""
    peer = PeerSettings()
    assert peer.set(8, 1, True) == NO_ERROR
    assert peer.enable_connect_protocol
    assert peer.set(8, 1, True) == NO_ERROR
    assert peer.set(8, 0, True) == PROTOCOL_ERROR
