"""The form of what a process hands to the next one (control/kept_state.py), as plain data that JSON has words for.

It is read strictly: what is not of this form and version is refused as a whole, since half of it may mean something
else. Times are Unix seconds.
"""

from __future__ import annotations

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
    """A value that an operator set. value, given: as JSON has it, null for no limit."""

    value: str | int | None
    given: str | int | None
    by: str
    at: float


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


class StateData(_Data):
    """All of it. saved_at: when it was so."""

    version: int
    saved_at: float
    pools: dict[str, PoolData]


def read(data: object) -> StateData:
    """Raises Unreadable."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise Unreadable(f"it is of version {version!r:.40}, and this lbproxy reads version {VERSION}")
    try:
        return StateData.model_validate(data)
    except ValidationError as error:
        raise Unreadable(words(error)) from None


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
