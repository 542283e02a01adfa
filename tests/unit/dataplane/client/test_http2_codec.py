"""A codec tells its connection what came, until that has ended. What it tells is in test_http2.py."""

from __future__ import annotations

from lbproxy.dataplane.client.http2_codec import ClientCodec, FrameOwner
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import PREFACE
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import GET, headers


class Owner(FrameOwner):
    def __init__(self) -> None:
        self.heads: list[tuple[int, bytes, bool]] = []

    def head_received(self, number: int, head: H2Head, is_end: bool) -> None:
        self.heads.append((number, head.path, is_end))


def test_who_has_ended_is_told_nothing() -> None:
    owner = Owner()
    codec = ClientCodec(owner, OwnSettings())
    codec.received(PREFACE + frames.settings([]) + headers(1, GET, is_end=True), 0.0)
    assert owner.heads == [(1, b"/", True)]
    codec.owner = None
    codec.received(headers(3, GET, is_end=True) + frames.rst_stream(3, 8) + frames.ping(bytes(8), True), 0.0)
    codec.received(frames.window_update(0, 0), 0.0)
    assert owner.heads == [(1, b"/", True)]
    assert codec.is_failed
