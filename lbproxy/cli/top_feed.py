"""The messages that `lbproxy top` lives on: the event stream of one lbproxy, and of the one that takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lbproxy import _client
from lbproxy.address import Address

RETRY_S: Final = 1.0


def follow(
    address: Address,
    token: str | None,
    timeout_s: float,
    complain: Callable[[str], None],
    sleep: Callable[[float], None],
) -> Iterator[tuple[str, object]]:
    """The messages of the stream, also of the lbproxy that comes after this one.

    complain: hears once when the connection is lost. Raises AdminError if there never was one.
    """
    has_begun = is_lost = False
    while True:
        why = "it has ended the stream"
        try:
            for message in _client.events(address, token=token, timeout_s=timeout_s):
                has_begun, is_lost = True, False
                yield message
        except _client.AdminError as error:
            if not has_begun:
                raise
            why = str(error)
        if not is_lost:
            complain(f"connection to {address} lost, trying again: {why}")
            is_lost = True
        sleep(RETRY_S)
