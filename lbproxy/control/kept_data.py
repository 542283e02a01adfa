"""The form of what a process hands to the next one (control/kept_state.py), as plain data that JSON has words for.

It is read strictly: what is not of this form and version is refused as a whole, since half of it may mean something
else. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lbproxy.control.live_values import Value
from lbproxy.domain.states import Admin

VERSION: Final = 1
WORDS: Final = 500  # characters of a reason
MOST_LEVEL: Final = 64


class Unreadable(ValueError):
    """The data are no state of this version. The text says why."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LiveData(_Data):
    """A value that an operator set. value, given: as JSON has it, null for no limit. keep_sticky: of `drain`, whether
    clients that stick to the server stay."""

    value: str | int | None
    given: str | int | None
    by: str
    at: float
    keep_sticky: bool = False


class AddedData(_Data):
    """An operator added the server, with these values. host: the name that it was found by, "" if none."""

    by: str
    at: float
    weight: int
    max_inflight: int | None
    backup: bool
    host: str = ""


class HealthData(_Data):
    """What was observed of it; see domain/server.py. at: when that changed."""

    state: Literal["up", "busy", "down"]
    reason: str
    why: str
    was_up: bool
    at: float


class EjectedData(_Data):
    """Its breaker was open, or it was being probed. until: when it is to be probed. The rest: see CircuitBreaker."""

    reason: str
    what: str
    level: int = Field(ge=0, le=MOST_LEVEL)
    until: float


class ServerData(_Data):
    """What is to be known of one server. live: what operators set, by key."""

    name: str
    address: str
    added: AddedData | None = None
    live: dict[Literal["admin", "weight", "max_inflight"], LiveData] = {}
    health: HealthData | None = None
    ejected: EjectedData | None = None


class RemovedData(_Data):
    """A server of the file that an operator removed."""

    name: str
    address: str
    by: str
    at: float


class PoolData(_Data):
    """Servers of whom there is nothing to say are left out."""

    servers: list[ServerData] = []
    removed: list[RemovedData] = []


class SplitData(_Data):
    """Shares of a split that an operator set. route: its name, or what it matches. given: the file's shares then."""

    listener: str
    route: str
    pools: list[str]
    shares: list[int]
    given: list[int]
    by: str
    at: float


class StateData(_Data):
    """All of it. saved_at: when it was so. splits: only those whose shares are not the file's."""

    version: int
    saved_at: float
    pools: dict[str, PoolData]
    splits: list[SplitData] = []


def read(data: object) -> StateData:
    """Raises Unreadable."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise Unreadable(f"it is of version {version!r:.40}, and this lbproxy reads version {VERSION}")
    try:
        return StateData.model_validate(data)
    except ValidationError as error:
        raise Unreadable(words(error)) from None


def servers_of(state: StateData) -> Iterator[ServerData]:
    """Of all pools."""
    for pool in state.pools.values():
        yield from pool.servers


def is_of_use(item: ServerData) -> bool:
    """Is there more to say than that it is well?"""
    is_down = item.health is not None and item.health.state == "down"
    return bool(item.added or item.live or item.ejected or is_down)


@dataclass(slots=True)
class PoolChanges:
    """What operators did to a pool between two snapshots of one process.

    taken_back: removals that hold no more. withdrawn: servers that were added before, and removed again. given_back:
    servers as they were before, with the keys that are the file's again. servers: what is new of them; live values only
    if they were set since, ejections only if there was none.
    """

    taken_back: list[RemovedData] = field(default_factory=list)
    removed: list[RemovedData] = field(default_factory=list)
    withdrawn: list[ServerData] = field(default_factory=list)
    given_back: list[tuple[ServerData, list[str]]] = field(default_factory=list)
    servers: list[ServerData] = field(default_factory=list)


def changes_since(before: StateData, after: StateData) -> dict[str, PoolChanges]:
    """By pool."""
    names = dict.fromkeys((*before.pools, *after.pools))
    return {name: _changes(before.pools.get(name, PoolData()), after.pools.get(name, PoolData())) for name in names}


def _changes(before: PoolData, after: PoolData) -> PoolChanges:
    old, new = ({(item.name, item.address): item for item in pool.servers} for pool in (before, after))
    was_removed, is_removed = ({(item.name, item.address): item for item in pool.removed} for pool in (before, after))
    found = PoolChanges(
        taken_back=[item for key, item in was_removed.items() if key not in is_removed],
        removed=[item for key, item in is_removed.items() if key not in was_removed],
    )
    for key, item in old.items():
        now = new.get(key)
        if item.added is not None and not _is_still_added(item.added, now):
            found.withdrawn.append(item)
        elif keys := [str(name) for name in item.live if now is None or name not in now.live]:
            found.given_back.append((item, keys))
    for key, item in new.items():
        known = old.get(key)
        if known is None or known in found.withdrawn:
            found.servers.append(item)
            continue
        live = {name: value for name, value in item.live.items() if not _is_same(known.live.get(name), value)}
        ejected = item.ejected if known.ejected is None else None
        if live or ejected is not None or item.health != known.health:
            found.servers.append(item.model_copy(update={"live": live, "ejected": ejected}))
    return found


def _is_still_added(added: AddedData, now: ServerData | None) -> bool:
    """Else it was removed, and perhaps added again with other values."""
    return now is not None and now.added is not None and now.added.model_copy(update={"at": added.at}) == added


def _is_same(before: LiveData | None, after: LiveData) -> bool:
    """Times are of two clocks, and `given` is not the operator's word."""
    return before is not None and (before.value, before.by, before.keep_sticky) == (
        after.value,
        after.by,
        after.keep_sticky,
    )


def words(error: ValidationError) -> str:
    """The first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def json_of(key: str, value: Value) -> str | int | None:
    """A value of live control as the data have it."""
    if isinstance(value, Admin):
        return value.value
    return None if key == "max_inflight" and value == 0 else value


def value_in(key: str, value: str | int | None) -> Value | None:
    """A value of live control that the data have; None: there is no such value of this key."""
    if key == "admin":
        return Admin(value) if value in list(Admin) else None
    if key == "max_inflight" and value is None:
        return 0
    return value if isinstance(value, int) and 0 <= value <= (65535 if key == "weight" else 1_000_000) else None
