"""What a request's key and its sticky cookie say about where it goes, in words."""

from __future__ import annotations

from lbproxy.control.status import Json
from lbproxy.dataplane.runtime import PoolRuntime
from lbproxy.domain.lease import Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.consistent import ConsistentHash, slot_of
from lbproxy.protocol.json_value import JsonValue

SHOWN = 100
"""Characters of a key."""


def key_in(pool: Pool, body: bytes) -> bytes:
    """The key in a body, where that is where the pool looks for it."""
    key = pool.picker.key
    if key is None or key.pointer is None:
        return b""
    search = JsonValue(key.pointer)
    search.feed(body, is_last=True)
    return search.value


def hash_words(pool: Pool, ctx: PickContext, picked: Server | None) -> Json | None:
    """key: what is hashed on. value: what the request has there. owner: whose the key is. why: it goes elsewhere, or
    has no key. None: the pool does not hash so. picked: who gets it, None if nobody does at once."""
    strategy = pool.picker.strategy
    if not isinstance(strategy, ConsistentHash):
        return None
    pool.eligible()  # so that the strategy knows of the last change
    pool.picker.fill_key(ctx)
    told: Json = {"key": strategy.hash_on, "value": None, "owner": None, "why": ""}
    if not ctx.key:
        told["why"] = f"the request has no {strategy.hash_on}: it goes by least connections"
    elif pool.servers:
        owner = strategy.owner(slot_of(ctx.key))
        told["value"] = ctx.client_ip if strategy.hash_on == "client_ip" else ctx.key.decode("utf-8", "replace")[:SHOWN]
        told["owner"] = owner.name
        if picked is not None and picked is not owner:
            told["why"] = f"{owner.name} {_why_not(pool, owner, strategy)}: it goes to the next in the order of its key"
    return told


def _why_not(pool: Pool, owner: Server, strategy: ConsistentHash) -> str:
    if owner in pool.members.beyond:
        return "stands in another zone"
    if owner not in pool.eligible():
        if owner.backup and owner.is_usable:
            return "is a backup"
        return f"takes no requests ({owner.shown})"
    if owner.inflight >= owner.limit:
        return f"is full ({owner.inflight} of {owner.limit} in flight)"
    return f"has {owner.inflight} in flight, more than {strategy.bounded_load:g} times its share (bounded_load)"


def sticky_words(runtime: PoolRuntime, field: str, wall: float) -> tuple[Json | None, Server | None]:
    """cookie: its name. server: whom it names. why: what follows. None: the pool has none. Besides, the server that
    gets the request by it."""
    sticky = runtime.sticky
    if sticky is None:
        return None, None
    server, _ = sticky.find(field, wall)
    told: Json = {"cookie": sticky.settings.cookie, "server": server.name if server is not None else None}
    if server is None:
        told["why"] = "no cookie that is good: the answer brings one"
        return told, None
    refusal = runtime.pool.keeps(server)
    if refusal is None:
        told["why"] = "its cookie names this server"
        return told, server
    if refusal is Refusal.NO_SERVER:
        told["why"] = f"{server.name} takes no requests ({server.shown}): it goes elsewhere, with another cookie"
    else:
        wait_s = sticky.settings.wait_s
        waits = f"it waits for {wait_s:g} s at most, and then " if wait_s else "it "
        told["why"] = f"{server.name} is full: {waits}goes elsewhere this once, and keeps its cookie"
    return told, None
