"""What must hold between the keys of a listener and its routes, and what header rules may touch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lbproxy.config.body_rules import MOST_POINTERS, MOST_POOLS, Split
from lbproxy.config.http_rules import HeaderEdits, HeaderRules, Match, Route
from lbproxy.config.model import Config, Listener
from lbproxy.config.problems import Path
from lbproxy.config.source import Document

MANAGED_HEADERS: Final = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Fields that frame messages or belong to one connection; lbproxy alone writes them (RFC 9110 section 7.6.1)."""

ACTIONS: Final = ("pool", "split", "redirect", "respond")
_FORWARDING_KEYS: Final = ("timeouts", "retry", "rewrite", "upgrade")


def referenced_pools(config: Config) -> Iterator[tuple[Path, str]]:
    """Every place that names a pool."""
    for index, listener in enumerate(config.listeners):
        if listener.pool is not None:
            yield ("listeners", index, "pool"), listener.pool
        for position, route in enumerate(listener.routes):
            if route.pool is not None:
                yield ("listeners", index, "routes", position, "pool"), route.pool
            for name in route.split.pools if route.split is not None else ():
                yield ("listeners", index, "routes", position, "split", "pools", name), name


def check_listener_routes(listener: Listener, path: Path, document: Document) -> None:
    has_pool = (*path, "pool") in document.keys
    has_routes = (*path, "routes") in document.keys
    if has_pool and has_routes:
        document.object_to(
            (*path, "pool"), "is given besides `routes`", "make it the last route, without match", at_key=True
        )
    elif not has_pool and not has_routes:
        document.require_one_of(path, ("pool", "routes"), "is required, or `routes`")
    elif has_routes and not listener.routes:
        document.object_to((*path, "routes"), "needs at least one route")
    _check_over_routes(listener, path, document)
    unreachable_after: int | None = None
    seen: dict[str, int] = {}
    for index, route in enumerate(listener.routes):
        place: Path = (*path, "routes", index)
        _check_route(route, place, document)
        if listener.mode == "tcp":
            _check_tcp_route(route, place, document)
        same = seen.setdefault(repr(route.match), index)
        if unreachable_after is not None:
            document.warn(place, f"is never reached: routes[{unreachable_after}] takes every request")
        elif same != index and not _takes_all(route):
            document.warn(place, f"is never reached: routes[{same}] has the same match")
        elif _takes_all(route) and (place not in document.blamed):
            unreachable_after = index


def _check_over_routes(listener: Listener, path: Path, document: Document) -> None:
    """What must hold over all routes of a listener: names, and what is looked for in bodies."""
    named: dict[str, int] = {}
    pointers: dict[str, None] = {}
    for index, route in enumerate(listener.routes):
        place: Path = (*path, "routes", index)
        if route.name is not None and named.setdefault(route.name, index) != index:
            document.object_to((*place, "name"), f"is the name of routes[{named[route.name]}] already")
        if route.name is not None and route.name.isdigit():
            document.object_to((*place, "name"), "would be taken for the position of a route", "begin with a letter")
        for pointer in route.match.json if route.match is not None else ():
            pointers.setdefault(pointer)
            if len(pointers) == MOST_POINTERS + 1:
                message = f"is one pointer more than the {MOST_POINTERS} that the routes of a listener may look for"
                document.object_to((*place, "match", "json", pointer), message, at_key=True)


def _takes_all(route: Route) -> bool:
    return route.match is None or route.match == Match()


def _check_route(route: Route, path: Path, document: Document) -> None:
    actions = [name for name in ACTIONS if (*path, name) in document.keys]
    if not actions:
        document.require_one_of(path, ACTIONS, "is required, or `split`, `redirect` or `respond`")
    elif len(actions) > 1:
        listed = " and ".join(f"`{name}`" for name in actions)
        document.object_to(path, f"has {listed}, but a route does one thing")
    elif actions[0] not in ("pool", "split"):
        for name in _FORWARDING_KEYS:
            if (*path, name) in document.keys:
                document.object_to((*path, name), f"has no meaning in a route with `{actions[0]}`", at_key=True)
    if route.split is not None:
        check_split(route.split, (*path, "split"), document)
    if route.respond is not None and route.respond.body and route.respond.status in (204, 205, 304):
        status = route.respond.status
        document.object_to((*path, "respond", "body"), f"an answer with status {status} has no body")
    if route.respond is not None:
        _check_managed(route.respond.headers, (*path, "respond", "headers"), document)
    if route.headers is not None:
        check_header_rules(route.headers, (*path, "headers"), document)


def check_split(split: Split, path: Path, document: Document) -> None:
    """Shares that lead somewhere."""
    if not split.pools:
        document.object_to(path, "names no pool", "such as {stable: 95, canary: 5}")
    elif len(split.pools) > MOST_POOLS:
        document.object_to(path, f"names {len(split.pools)} pools, {MOST_POOLS} are the most")
    elif not any(split.pools.values()):
        document.object_to(path, "gives no pool a share", "one of them must be above 0")


def _check_tcp_route(route: Route, path: Path, document: Document) -> None:
    hint = "use `pool` alone, or `mode: http`"
    for name in ("name", "match", "split", "redirect", "respond", "rewrite", "headers", "retry", "upgrade", "api_keys"):
        if (*path, name) in document.keys and not (name == "match" and _takes_all(route)):
            document.object_to((*path, name), "is not possible on a TCP listener", hint, at_key=True)


def check_header_rules(rules: HeaderRules, path: Path, document: Document) -> None:
    for side, edits in (("request", rules.request), ("response", rules.response)):
        _check_edits(edits, (*path, side), document)
    if "host" in (name.lower() for name in rules.request.remove):
        index = [name.lower() for name in rules.request.remove].index("host")
        document.object_to((*path, "request", "remove", index), "a request cannot be without Host", "set it instead")


def _check_edits(edits: HeaderEdits, path: Path, document: Document) -> None:
    _check_managed(edits.set, (*path, "set"), document)
    _check_managed(edits.add, (*path, "add"), document)
    for index, name in enumerate(edits.remove):
        if name.lower() in MANAGED_HEADERS:
            document.object_to((*path, "remove", index), f"{name} is managed by lbproxy itself")


def _check_managed(headers: HeaderEdits | object, path: Path, document: Document) -> None:
    seen: dict[str, str] = {}
    for name in headers if isinstance(headers, dict) else ():
        if name.lower() in MANAGED_HEADERS:
            document.object_to((*path, name), f"{name} is managed by lbproxy itself", "remove it", at_key=True)
        first = seen.setdefault(name.lower(), name)
        if first != name:
            document.object_to((*path, name), f"is the same header as {first}", "remove one of them", at_key=True)
