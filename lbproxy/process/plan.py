"""What a reload would do: two configs in, a list of steps out. Nothing is touched here.

A thing is the same thing in both configs if it has the same identity: a listener by each address that it binds, a pool
by its name, a server by its name within its pool, as long as its address is the same. What stays the same thing keeps
its connections, queue, counters, health and learned values; what is new begins from nothing; what is gone drains.

Steps stand in the order in which they can be done: pools and servers come before the routes that use them, and what
goes goes last, so that at no moment a route names a pool that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lbproxy.config.listener_model import Listener
from lbproxy.config.model import Config
from lbproxy.config.notation import Section
from lbproxy.config.pool_model import Pool
from lbproxy.config.server_model import ServerSpec
from lbproxy.config.units import written
from lbproxy.process.listeners import binds_of

SECRET_KEYS = frozenset({"token", "tokens", "secret"})
PROCESS_SECTIONS = ("watch", "state_file", "admin", "access_log", "log", "shutdown", "limits", "trusted_proxies")
UPGRADE_SECTIONS = ("workers",)


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is another one, relative to what the step names; values as a message shows them."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done. `subject` names it: the address of a listener, a pool, `pool/server`, or nothing."""

    kind: ClassVar[str] = ""

    subject: str
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        words = f"{self.kind} {self.subject}".strip()
        return f"{words}: {', '.join(map(str, self.changes))}" if self.changes else words


class AddPool(Step):
    kind = "add pool"


class ChangePool(Step):
    """Its settings are other ones from the next request on; its queue, counts and learned values stay."""

    kind = "change pool"


class ReplaceStrategy(Step):
    """The new one begins with the servers' present loads."""

    kind = "replace strategy of pool"


class ChangeChecks(Step):
    """The new settings hold from each server's next check on; nobody becomes unknown."""

    kind = "change checks of pool"


class AddServer(Step):
    """It takes traffic after its first passing check."""

    kind = "add server"


class ChangeServer(Step):
    kind = "change server"


class AddListener(Step):
    """Bound before anything changes."""

    kind = "add listener"


class ChangeListener(Step):
    """Limits, time-outs and rules: the next request head sees them, a request in flight keeps what it began with."""

    kind = "change listener"


class ReplaceRoutes(Step):
    kind = "replace routes of listener"


class ReplaceTls(Step):
    """Connections that are open keep the certificate with which they began."""

    kind = "replace TLS of listener"


class DropListener(Step):
    """It stops accepting and drains as at SIGTERM; tunnels and TCP connections live until they end."""

    kind = "drop listener"


class DropServer(Step):
    """No new requests; its counters leave /metrics when its last request is done."""

    kind = "drop server"


class DropPool(Step):
    """It serves what is in it and in its queue, and goes."""

    kind = "drop pool"


class ChangeProcess(Step):
    """The admin address, logs, limits of the process, trusted proxies, shutdown."""

    kind = "change process"


class NeedsUpgrade(Step):
    """Not done by a reload, which does the rest; an upgrade does it, and so does a restart."""

    kind = "after an upgrade"


def plan(old: Config, new: Config) -> tuple[Step, ...]:
    """The steps from one config to another, none if nothing differs."""
    return tuple(_steps(old, new))


def _steps(old: Config, new: Config) -> Iterator[Step]:
    for name, pool in new.pools.items():
        before = old.pools.get(name)
        if before is None:
            yield AddPool(name)
            yield from (AddServer(f"{name}/{server.name}") for server in pool.servers)
        elif before is not pool:  # most are, where one was changed: lbproxy.config.pieces
            yield from _pool_steps(name, before, pool)
    yield from _listener_steps(_listeners(old), _listeners(new))
    for name, pool in old.pools.items():
        after = new.pools.get(name)
        if after is pool:
            continue
        kept = {} if after is None else _servers(after)
        yield from (DropServer(f"{name}/{server}") for server, spec in _servers(pool).items() if not _is_in(spec, kept))
        if after is None:
            yield DropPool(name)
    process = tuple(_changes(old, new, PROCESS_SECTIONS))
    if process:
        yield ChangeProcess("", process)
    later = tuple(_changes(old, new, UPGRADE_SECTIONS))
    if later:
        yield NeedsUpgrade("", later)


def _pool_steps(name: str, old: Pool, new: Pool) -> Iterator[Step]:
    own = ("servers", "strategy", "health_check")
    for kind, keys in (
        (ChangePool, [key for key in type(new).model_fields if key not in own]),
        (ReplaceStrategy, ["strategy"]),
        (ChangeChecks, ["health_check"]),
    ):
        changes = tuple(_changes(old, new, keys))
        if changes:
            yield kind(name, changes)
    before = _servers(old)
    for server, spec in _servers(new).items():
        if not _is_in(spec, before):
            yield AddServer(f"{name}/{server}")
        elif changed := tuple(_changes(before[server], spec, ServerSpec.model_fields)):
            yield ChangeServer(f"{name}/{server}", changed)


def _servers(pool: Pool) -> dict[str, ServerSpec]:
    return {server.name: server for server in pool.servers}


def _is_in(server: ServerSpec, others: Mapping[str, ServerSpec]) -> bool:
    """Is it one of them? At another address it is another server, whatever its name."""
    found = others.get(server.name)
    return found is not None and found.address == server.address


def _listeners(config: Config) -> dict[str, Listener]:
    return {name: bind.listener for name, bind in binds_of(config).items()}


def _listener_steps(old: Mapping[str, Listener], new: Mapping[str, Listener]) -> Iterator[Step]:
    own = ("bind", "pool", "routes", "tls")
    for subject, listener in new.items():
        before = old.get(subject)
        if before is None:
            yield AddListener(subject)
            continue
        if before.effective_routes() != listener.effective_routes():
            yield ReplaceRoutes(subject)
        if before.tls != listener.tls:
            yield ReplaceTls(subject, tuple(_changes(before, listener, ("tls",))))
        changes = tuple(_changes(before, listener, [key for key in Listener.model_fields if key not in own]))
        if changes:
            yield ChangeListener(subject, changes)
    yield from (DropListener(subject) for subject in old if subject not in new)


# --- values -----------------------------------------------------------------------------------------------------------


def _changes(old: Section, new: Section, keys: object, prefix: str = "") -> Iterator[Change]:
    """The leaves that differ. A section that is on one side only is one change."""
    for key in keys:  # type: ignore[attr-defined]
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        path = f"{prefix}{key}"
        if isinstance(before, Section) and type(before) is type(after):
            yield from _changes(before, after, type(after).model_fields, f"{path}.")
        elif key in SECRET_KEYS:
            yield Change(path, "(secret)", "(another secret)")
        else:
            yield Change(path, _text(before), _text(after))


def _text(value: object) -> str:
    """A value on one line, about as a config file has it."""
    if isinstance(value, Section):
        shown = {key: getattr(value, key) for key in type(value).model_fields if key in value.model_fields_set}
        return _text({key: "(secret)" if key in SECRET_KEYS else item for key, item in shown.items()})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list, frozenset)):
        return "[" + ", ".join(map(_text, value)) + "]"
    return written(value)
