"""What is hardly meant: single keys that mean something else than most people think, tokens that tell nobody apart."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from pydantic import BaseModel

from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool
from lbproxy.config.problems import Path
from lbproxy.config.server_model import parse_server_address
from lbproxy.config.source import Document

LONG_S: Final = 3600.0
SHORT_INTERVAL_S: Final = 0.1
# Silence of hours is ordinary in a tunnel, and these bound nothing that somebody waits for.
_MAY_BE_LONG: Final = ("tunnel", "half_closed", "keep_alive", "max_age", "idle_timeout", "slow_start", "max_open")

_TIMES: Final = ("timeout", "interval", "delay", "grace", "open")


def check_doubts(config: Config, document: Document) -> None:
    """Add the warnings."""
    _check_admin(config, document)
    _check_trusted(config, document)
    for path, seconds in _durations(config, document):
        if seconds > LONG_S:
            written = document.at(path)
            is_bare = isinstance(written, (int, float)) and not isinstance(written, bool)
            hint = f"a number is seconds; did you mean {written}ms?" if is_bare else ""
            document.warn(path, f"is longer than an hour ({seconds / 3600:.3g} hours)", hint)
    for path in _literal_stars(config):
        document.warn(path, "`*` is an ordinary character here", "use `path_prefix` or `path_regex`")
    for name, pool in config.pools.items():
        place: Path = ("pools", name)
        document.once("doubts", place, partial(_check_pool, pool, place, document))


def _check_admin(config: Config, document: Document) -> None:
    admin = config.admin
    holders = {} if admin.token is None else {admin.token: "admin.token"}
    for name, item in admin.tokens.items():
        holder = f"admin.tokens.{name}"
        if item.token is not None and holders.setdefault(item.token, holder) != holder:
            path: Path = ("admin", "tokens", name)
            document.object_to(path, f"is the same as {holders[item.token]}", "give each its own")
    if admin.bind is None or admin.tokens or "token" in admin.model_fields_set or not _is_open(admin.bind.host):
        return
    where: Path = ("admin", "bind") if ("admin", "bind") in document.values else ("admin",)
    message = f"without a `token` everybody who can reach {admin.bind} can read the status"
    document.warn(where, message, "set `admin.token`, bind 127.0.0.1, or say `token: off`")


def _is_open(host: str) -> bool:
    """Whether an address to bind may be reached from elsewhere; a name is not looked up."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_trusted(config: Config, document: Document) -> None:
    for index, network in enumerate(config.trusted_proxies):
        if not isinstance(network, str) and network.prefixlen == 0:
            path: Path = ("trusted_proxies", index)
            document.warn(path, "trusts everybody: any client can claim any address", "name your own proxies")


def _durations(config: Config, document: Document) -> Iterator[tuple[Path, float]]:
    """The time-outs and intervals that stand in the file."""
    for path in list(document.values):
        if not path or (path[-1] not in _TIMES and "timeouts" not in path):
            continue  # as most; the rest is looked at closely
        if str(path[-1]) in _MAY_BE_LONG or not _is_time(path):
            continue
        value = _read(config, path)
        if isinstance(value, float):
            yield path, value


def _is_time(path: Path) -> bool:
    parts = tuple(part for part in path if isinstance(part, str))
    return "timeouts" in parts[:-1] or (len(parts) > 1 and parts[-1] in _TIMES)


def _read(config: Config, path: Path) -> Any:
    """The value of a model at a path of the file, None where they differ."""
    value: Any = config
    for part in path:
        if isinstance(value, BaseModel) and isinstance(part, str):
            value = getattr(value, part, None)
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, tuple) and isinstance(part, int) and part < len(value) else None
    return value


def _literal_stars(config: Config) -> Iterator[Path]:
    for index, listener in enumerate(config.listeners):
        for position, route in enumerate(listener.routes):
            for section, names in (("match", ("path", "path_prefix")), ("rewrite", ("strip_prefix", "path_prefix"))):
                for name in names:
                    text = getattr(getattr(route, section), name, None)
                    if text is not None and "*" in text:
                        yield ("listeners", index, "routes", position, section, name)
    for name, pool in config.pools.items():
        if pool.health_check is not None and "*" in pool.health_check.path:
            yield ("pools", name, "health_check")


def _check_pool(pool: Pool, path: Path, document: Document) -> None:
    items = document.at((*path, "servers"))
    for index, item in enumerate(items if isinstance(items, list) else []):
        try:
            address = parse_server_address(item.get("address") if isinstance(item, dict) else item)
        except ValueError:
            continue
        if address.host in ("0.0.0.0", "::"):
            here = "127.0.0.1" if address.host == "0.0.0.0" else "[::1]"
            message = f"{address.host} is every address of a machine and none to connect to"
            document.warn((*path, "servers", index), message, f"did you mean {here}:{address.port}?")
    if pool.servers and all(server.weight == 0 for server in pool.servers):
        document.warn((*path, "servers"), "no server gets traffic: every weight is 0")
    check = pool.health_check
    if check is not None and check.interval < SHORT_INTERVAL_S:
        where = (*path, "health_check", "interval")
        document.warn(where, f"asks every server {1 / check.interval:.0f} times a second", "1s is short")
