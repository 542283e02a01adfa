"""What must hold between `tests` and the rest of the file: what they name exists, and what they expect can come."""

from __future__ import annotations

from typing import Final

from lbproxy.config.listener_model import Listener
from lbproxy.config.model import Config
from lbproxy.config.problems import Path
from lbproxy.config.source import Document
from lbproxy.config.tests_model import NONE, Trial, matches
from lbproxy.config.validation import closest

EXPECTED: Final = ("route", "pool", "server", "status", "path", "location")
_ONLY_HTTP: Final = (
    ("request", ("method", "path", "host", "headers", "body")),
    ("expect", ("route", "status", "path", "location")),
)


def check_tests(config: Config, document: Document) -> None:
    """Add the problems."""
    for index, trial in enumerate(config.tests):
        path: Path = ("tests", index)
        listener = listener_of(trial, config)
        _check_request(trial, listener, config, path, document)
        for place in trial.given:
            _check_given(place, trial, config, (*path, "given", place), document)
        _check_expectation(trial, listener, config, (*path, "expect"), document)


def listener_of(trial: Trial, config: Config) -> Listener | None:
    """The listener that gets the request, None if it is not clear which."""
    name = trial.request.listener
    found = [listener for listener in config.listeners if name in (None, listener.name)]
    return found[0] if len(found) == 1 else None


def _check_request(trial: Trial, listener: Listener | None, config: Config, path: Path, document: Document) -> None:
    name, names = trial.request.listener, [listener.name for listener in config.listeners]
    where = (*path, "request", "listener")
    if listener is None and name is not None:
        document.object_to(where, f"there is no listener {name}", _hint(name, names, "listeners"))
    elif listener is None and len(names) > 1:
        document.object_to(where, "is required where there are several listeners", "listeners: " + ", ".join(names))
    for field in trial.request.headers:
        if field.lower() == "host":
            message = "stands in `host` of the request"
            document.object_to((*path, "request", "headers", field), message, "write {host: ...}", at_key=True)
    if listener is not None and listener.mode == "tcp":
        for section, keys in _ONLY_HTTP:
            for key in keys:
                if (*path, section, key) in document.keys:
                    document.object_to((*path, section, key), "has no meaning on a TCP listener", at_key=True)


def _check_given(place: str, trial: Trial, config: Config, path: Path, document: Document) -> None:
    pool_name, _, pattern = place.partition("/")
    pool = config.pools.get(pool_name)
    if pool is None:
        hint = _hint(pool_name, list(config.pools), "pools")
        if not _is_blamed(pool_name, document):
            document.object_to(path, f"there is no pool {pool_name}", hint, at_key=True)
        return
    servers = [server for server in pool.servers if matches(pattern, server.name)]
    if not servers and not _is_blamed(pool_name, document):
        hint = _hint(pattern, [server.name for server in pool.servers], "servers")
        document.object_to(path, f"pool {pool_name} has no server {pattern}", hint, at_key=True)
    if trial.given[place].state == "full":
        for server in servers:
            if server.max_inflight is None and pool.max_inflight is None:
                document.object_to(path, f"{server.name} has no `max_inflight`, so it is never full", at_key=True)
                return


def _check_expectation(trial: Trial, listener: Listener | None, config: Config, path: Path, document: Document) -> None:
    expected = trial.expect
    if not any((*path, key) in document.keys for key in EXPECTED):
        document.object_to(path, "expects nothing", "say at least one of " + ", ".join(EXPECTED))
    if listener is not None and isinstance(expected.route, int) and expected.route >= len(listener.effective_routes()):
        count = len(listener.effective_routes())
        told = "its only route is 0" if count == 1 else f"its routes are 0 to {count - 1}"
        document.object_to((*path, "route"), f"listener {listener.name} has no route {expected.route}; {told}")
    names = list(config.pools)
    if expected.pool not in (None, NONE, *names):
        hint = _hint(str(expected.pool), names, "pools")
        document.object_to((*path, "pool"), f"there is no pool {expected.pool}", hint)
        return
    if expected.pool == NONE and expected.server not in ((), (NONE,)):
        document.object_to((*path, "server"), "a request that goes to no pool goes to no server")
        return
    if expected.status is not None and expected.server not in ((), (NONE,)):
        message = "belongs to an answer of lbproxy itself, and what goes to a server is answered there"
        document.object_to((*path, "status"), message, "expect one of them", at_key=True)
    _check_servers(trial, config, path, document)


def _check_servers(trial: Trial, config: Config, path: Path, document: Document) -> None:
    """Every server that is expected is there, in the pool that is expected or in any."""
    pools = [name for name in config.pools if trial.expect.pool in (None, name)]
    if any(_is_blamed(name, document) for name in pools):
        return
    known = [server.name for name in pools for server in config.pools[name].servers]
    for number, pattern in enumerate(trial.expect.server):
        if pattern != NONE and not any(matches(pattern, name) for name in known):
            item = (*path, "server", number)
            where = item if item in document.values else (*path, "server")  # one that stands for a list
            message = f"pool {pools[0]} has no server" if len(pools) == 1 else "no pool has a server"
            document.object_to(where, f"{message} {pattern}", _hint(pattern, known, "servers"))


def _is_blamed(pool: str, document: Document) -> bool:
    """Was something in this pool, or around it, cut out as wrong?"""
    return any(blamed in ((), ("pools",)) or blamed[:2] == ("pools", pool) for blamed in document.blamed)


def _hint(given: str, known: list[str], what: str) -> str:
    close = closest(given, known)
    return f"did you mean {close}?" if close else f"{what}: " + (", ".join(known[:20]) or "none")
