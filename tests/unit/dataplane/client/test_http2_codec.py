"""A codec tells its connection what came, until that has ended. What it tells is in test_http2.py."""

from __future__ import annotations

from typing import cast

from lbproxy.dataplane.client.http2_codec import ClientCodec
from lbproxy.dataplane.client.http2_connection import Http2Life
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import PREFACE
from tests.support.fake_transport import FakeLb
from tests.support.h2_ends import GET, headers
from tests.unit.dataplane.client.helpers import CONFIG


def test_who_has_ended_is_told_nothing() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(PREFACE + frames.settings([]) + headers(1, GET, is_end=True))
        codec = cast(Http2Life, client.transport.get_protocol()).codec
        assert isinstance(codec, ClientCodec) and len(lb.loop.dials) == 1
        client.reset()
        assert codec.owner is None
        codec.received(headers(3, GET, is_end=True) + frames.rst_stream(3, 8) + frames.ping(bytes(8), True), 0.0)
        codec.received(frames.window_update(0, 0), 0.0)
        assert codec.is_failed
        assert len(lb.log) == 1, "of the request that its client left"
