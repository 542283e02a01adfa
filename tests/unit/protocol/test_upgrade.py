"""The Upgrade field: offers, what is allowed of them, and what a 101 may choose."""

from __future__ import annotations

import pytest

from lbproxy.protocol.upgrade import allowed_protocols, is_answer_to, offered_protocols


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ([b"websocket"], [b"websocket"]),
        ([b"a/1 ,\tB/2", b"c"], [b"a/1", b"B/2", b"c"]),
        ([b"", b" , ,"], []),
        ([b"a b, c/d/e, /x, x/, \x0bq, \xe9, ok"], [b"ok"]),
    ],
)
def test_offers_are_tokens_with_a_version_or_without(values: list[bytes], offered: list[bytes]) -> None:
    assert list(offered_protocols(values)) == offered


def test_a_name_stands_for_every_version_and_a_version_for_itself() -> None:
    offered = [b"IRC", b"irc/6.9", b"chat/1", b"chat/2", b"chat"]
    assert allowed_protocols(offered, {b"irc", b"chat/2"}, "POST") == b"IRC, irc/6.9, chat/2"
    assert allowed_protocols(offered, set(), "GET") == b""


def test_websocket_begins_with_get() -> None:
    assert allowed_protocols([b"WebSocket"], {b"websocket"}, "GET") == b"websocket"
    assert allowed_protocols([b"WebSocket"], {b"websocket"}, "POST") == b""


@pytest.mark.parametrize(
    ("chosen", "offered", "is_right"),
    [
        (b"a", b"a", True),
        (b"A/1", b"b, a/1", True),
        (b"a,b", b"b, a", True),
        (b"a", b"a/1", False),
        (b"a, c", b"a, b", False),
        (b"", b"a", False),
        (b"a,", b"a", False),
        (b"", b"", False),
    ],
)
def test_an_answer_names_what_was_offered(chosen: bytes, offered: bytes, is_right: bool) -> None:
    assert is_answer_to(chosen, offered) is is_right
