"""The Upgrade field (RFC 9110 section 7.8): what a client offers, what of it a server gets to see, what it may choose.

A tunnel begins only with a 101 that names protocols which were offered *and* allowed by the config; everything else in
the field is taken out, and the request is served as plain HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from lbproxy.protocol.message import TOKEN

WEBSOCKET: Final = b"websocket"
_protocol = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?").fullmatch


def offered_protocols(values: Sequence[bytes]) -> tuple[bytes, ...]:
    """The protocols of all Upgrade lines, in order, as they were spelled; malformed elements are left out."""
    elements = [element.strip(b" \t") for value in values for element in value.split(b",")]
    return tuple(element for element in elements if _protocol(element))


def allowed_protocols(offered: Sequence[bytes], allowed: Collection[bytes], method: str) -> bytes:
    """The Upgrade field for the server, b"" if nothing is left.

    allowed: lower-case names, of any version, or names with one (`irc/6.9`). WebSocket begins with GET only (RFC 6455
    section 4.1).
    """
    kept = []
    for protocol in offered:
        lower = protocol.lower()
        if lower not in allowed and lower.partition(b"/")[0] not in allowed:
            continue
        if lower == WEBSOCKET:
            if method != "GET":
                continue
            protocol = WEBSOCKET  # any case is right, but not every server knows that
        kept.append(protocol)
    return b", ".join(kept)


def is_answer_to(chosen: bytes, offered: bytes) -> bool:
    """Does the Upgrade field of a 101 name nothing but protocols that were offered to this server, and at least one?"""
    names = [element.strip(b" \t").lower() for element in chosen.split(b",")]
    return bool(offered) and set(names) <= set(offered.lower().split(b", "))
