"""Models of the servers of a pool, the ranges they may be written as, and the strategy that chooses among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, model_validator

from lbproxy.address import Address, AddressRange
from lbproxy.config import slips
from lbproxy.config.notation import (
    FLAG,
    NAME,
    TEXT,
    TEXT_SCHEMA,
    Notation,
    Section,
    Shorthand,
    checked_address,
    integer,
    setting,
)
from lbproxy.config.units import parse_text, plain, shown

MAX_RANGE: Final = 256
COUNT: Final = integer(1, 1_000_000)
WEIGHT: Final = integer(0, 65535)
BUILT_IN_STRATEGIES: Final = (
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "ip_hash",
    "random",
    "power_of_two",
    "peak_ewma",
    "consistent_hash",
    "first",
)


def parse_server_address(value: object) -> Address:
    """`host:port`, `host:first-last` (an AddressRange) or `unix:PATH`."""
    if isinstance(value, Address):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"expected host:port, got {shown(value)}; did you mean 127.0.0.1:{shown(value)}?")
    return _read_address(parse_text(value))


@lru_cache(4096)
def _read_address(text: str) -> Address:
    """Remembered, since checks of the file read again what the models have read, and so does each reload."""
    refuse_several_hosts(text)
    ports = re.search(r":([0-9]+)-([0-9]+)$", text)
    if ports and int(ports[1]) >= int(ports[2]):
        checked_address(text)  # says how to write the range
    if ports and not text.startswith("unix:"):
        first = checked_address(text[: ports.start()] + ":" + ports.group(1))
        last = checked_address(text[: ports.start()] + ":" + ports.group(2)).port
        if not 0 < first.port < last:
            raise ValueError(f"{text!r} is not a range of ports: the first is above 0 and below the last")
        if last - first.port >= MAX_RANGE:
            raise ValueError(f"{text!r} names more than {MAX_RANGE} servers")
        return AddressRange(first.host, first.port, "", last)
    address = checked_address(text)
    if not address.is_unix and address.port == 0:
        raise ValueError("a server's port is from 1 to 65535")
    return address


def refuse_several_hosts(text: str) -> None:
    """Ports can be a range, hosts cannot; some ways to write several would pass for the name of one.

    Raises ValueError with what to write.
    """
    if text.startswith("unix:") or "://" in text:
        return
    if told := slips.address(text, is_server=True):
        raise ValueError(told)
    host, _, port = text.rpartition(":")
    if re.search(r"[,;\s]", text):
        raise ValueError(f"{text!r} is several servers in one text; make it a list: [host-1:80, host-2:80]")
    if re.search(r"[{*]|\[[^:]*\]", host):
        raise ValueError(f"{text!r} is a pattern for several hosts, and only ports can be a range; write each host")
    if "/" in host:
        raise ValueError(f"{text!r} names a network or a path; write each host as host:port, and a socket as unix:PATH")
    span = re.fullmatch(r"([0-9.]+\.)([0-9]+)(?:-|\.\.)(?:[0-9.]*\.)?([0-9]+)", host)
    if span is not None:
        first, last = f"{span[1]}{span[2]}:{port}", f"{span[1]}{span[3]}:{port}"
        raise ValueError(
            f"{text!r} is a range of hosts, and only ports can be one; write each host: {first}, ..., {last}"
        )


SERVER_ADDRESS: Final = Notation(
    "`host:port`, `host:5001-5004` or `unix:PATH`", parse_server_address, {"type": "string"}
)


class ServerSpec(Section):
    """One server. `name` is the address text where the user gave none."""

    address: Annotated[Address, SERVER_ADDRESS] = setting(
        ...,
        "`host:port`, `[v6]:port`, `unix:PATH`, `unix:@abstract`, or `host:5001-5004` for one server a port. A DNS "
        "name becomes one server per address that it has.",
    )
    name: Annotated[str, Notation("name", lambda v: v if v == "" else NAME.parse(v), TEXT_SCHEMA)] = setting(
        "", "Name in metrics, logs and the API; the address if not set. With a range of ports, `-PORT` is appended."
    )
    weight: Annotated[int, WEIGHT] = setting(
        1, "Share of the traffic, relative to the other servers, for strategies that weigh. 0: no new traffic."
    )
    max_inflight: Annotated[int | None, COUNT.or_unset()] = setting(
        None, "Requests (TCP: connections) at once on this server; the pool's `max_inflight` if not set."
    )
    backup: Annotated[bool, FLAG] = setting(False, "Used only while no other server is usable.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) == 1:
            [(name, port)] = value.items()
            if name not in cls.model_fields and re.fullmatch(r"[\w-]+(\.[\w-]+)+|localhost", str(name)):
                told = f"{name}:{'PORT' if port is None else shown(port)}"
                raise ValueError(f"{name}: is read as a key; write {told} without a space behind the colon")
        return value if isinstance(value, (dict, ServerSpec)) else {"address": value}


def as_written(value: object) -> object:
    return value


AnyServer = Annotated[ServerSpec, Shorthand("address, or a mapping", as_written, (SERVER_ADDRESS.schema,))]


def expand_servers(specs: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
    """Ranges of ports become single servers, and servers without a name get their address as name."""
    servers: list[ServerSpec] = []
    for spec in specs:
        if isinstance(spec.address, AddressRange):
            for port in range(spec.address.port, spec.address.last_port + 1):
                address = Address(spec.address.host, port)
                name = f"{spec.name}-{port}" if spec.name else str(address)
                servers.append(spec.model_copy(update={"address": address, "name": name}))
        else:
            servers.append(spec if spec.name else spec.model_copy(update={"name": str(spec.address)}))
    return tuple(servers)


def _open_for_options(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = True
    del schema["properties"]["options"]


class StrategySpec(Section):
    """A built-in or installed strategy by name, or a class of the user's; what else stands there are its options."""

    model_config = ConfigDict(json_schema_extra=_open_for_options)

    name: Annotated[str | None, NAME.or_unset()] = setting(
        None, "A built-in strategy, or one that an installed package offers under `lbproxy.strategies`."
    )
    python: Annotated[str | None, TEXT.or_unset()] = setting(
        None, "A class of your own: `module:Class` or `path/to/file.py:Class`."
    )
    options: Mapping[str, object] = Field(default={}, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            return value
        known = {name: value[name] for name in ("name", "python") if name in value}
        return {**known, "options": {name: plain(item) for name, item in value.items() if name not in known}}
