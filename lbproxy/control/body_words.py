"""What a body says about where its request goes, and how a split shares requests out, for people."""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.control.affinity_words import SHOWN
from lbproxy.control.status import Json
from lbproxy.dataplane.exchange.choosing import Choosing
from lbproxy.dataplane.exchange.prepared import Fork, Prepared
from lbproxy.domain.splitting import Split
from lbproxy.domain.text_pattern import TextPattern
from lbproxy.protocol.json_value import JsonValue
from lbproxy.request_key import read_pointer


class SeenBody:
    """A body, or its beginning, as routes look at it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def value(self, pointer: str) -> bytes:
        """What stands at a JSON Pointer, b"" for nothing that a route can go by."""
        search = JsonValue(read_pointer(pointer), is_exact=True)
        search.feed(self._body, is_last=True)
        return search.value

    def text(self, pointer: str) -> str:
        """The same for people."""
        return self.value(pointer).decode("utf-8", "replace")[:SHOWN]

    def holds(self, pointer: str, wanted: str) -> bool:
        """Is it what a route wants there?"""
        value = self.value(pointer)
        return bool(value) and TextPattern(wanted).matches(value)


def beyond_fork(fork: Fork, client: str, body: bytes, pools: Sequence[str] = ()) -> tuple[Prepared, Json | None]:
    """What happens to a request whose route depends on its body or on a split, without chance being asked: where that
    would decide, the first of `pools` that may get it stands for all, or the pool with the most. Besides, the split.

    by: its key, None for chance. value: what the request has there. pool: that gets it, None if chance decides. pools:
    with the chance of each. shown: the pool that is spoken of.
    """
    choosing = Choosing(fork, client)
    choosing.advance(None, body, is_done=True)
    split = fork.routes[choosing.at].split
    if split is None:
        return fork.prepared(choosing.at), None
    key = choosing.key(split)
    shares = split.shares()
    may = [name for name in pools if name in split.names and shares[split.names.index(name)]]
    branch = split.pick(key, 0.0) if key else split.names.index(may[0]) if may else shares.index(max(shares))
    return fork.prepared(choosing.at, branch), _split_words(split, key, client, branch)


def _split_words(split: Split, key: bytes, client: str, branch: int) -> Json:
    shares = split.shares()
    value = (
        client if split.key is not None and split.key.kind == "client_ip" else key.decode("utf-8", "replace")[:SHOWN]
    )
    why = ""
    if split.key is not None and not key:
        why = f"the request has no {split.key.text}: it goes by chance"
    return {
        "by": None if split.key is None else split.key.text,
        "value": value if key else None,
        "pool": split.names[branch] if key else None,
        "pools": [
            {"pool": name, "chance": round(share / sum(shares), 6)}
            for name, share in zip(split.names, shares, strict=True)
        ],
        "shown": split.names[branch],
        "why": why,
    }
