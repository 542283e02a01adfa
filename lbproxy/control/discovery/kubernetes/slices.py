"""What EndpointSlices (discovery.k8s.io/v1) say: who the servers of a service are. No I/O.

    ready, not terminating       a server
    terminating, serving or not  no server any more: it drains. Also where publishNotReadyAddresses calls it ready
    neither                      no server

Conditions that are not there count as the API's description says: `ready` as true, `terminating` as false.

An address stands in two slices for a moment when it is moved from one to the other; what was heard last counts then. A
service of both families has slices of either for the same pods: a pod is one server, so only one family is used.

Where a zone comes first, an endpoint with hints belongs to the zones that those name, one without to its own. If no
hint names this zone, hints don't count: whoever made them did not know of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from lbproxy.address import Address
from lbproxy.control.discovery.source import Answer, Found, Trouble

IPV4: Final = "IPv4"
IPV6: Final = "IPv6"
_FAMILIES: Final = (IPV4, IPV6)
_KEYS: Final = {"ipv4": IPV4, "ipv6": IPV6}  # of the config
SHOWN: Final = 5  # ports that a message names
MAX_ZONES: Final = 8  # of an endpoint's hints, as many as the API allows
_POD: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123, as names of pods are

Json = Mapping[str, object]


class Malformed(ValueError):
    """Not what the API promises; with words for the user."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """is_ready: it may get requests. is_going: it is terminating. pod, zone: names, "" if there is none. for_zones: who
    is to use it, as hints say; empty if they say nothing."""

    ip: str
    pod: str
    zone: str
    is_ready: bool
    is_going: bool
    for_zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """What counts of an EndpointSlice. ports: of TCP, by name, None for any; version: its resourceVersion."""

    name: str
    version: str
    family: str
    ports: tuple[tuple[str, int | None], ...]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class View:
    """An answer. going: addresses that are no servers any more and on their way out; lacking: as Source.lacking."""

    answer: Answer
    going: frozenset[str] = frozenset()
    lacking: str = ""


# --- reading ----------------------------------------------------------------------------------------------------------


def mapping(value: object, what: str) -> Json:
    """The value, which must be a mapping. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"the API server's answer has no {what}")
    return value


def version_of(value: object) -> str:
    """The resourceVersion of an object or a list. Raises Malformed."""
    version = mapping(mapping(value, "object").get("metadata"), "metadata").get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise Malformed("the API server's answer has no resourceVersion")
    return version


def name_of(value: object) -> str:
    name = mapping(mapping(value, "object").get("metadata"), "metadata").get("name")
    if not isinstance(name, str) or not name:
        raise Malformed("an EndpointSlice has no name")
    return name


def read_slice(value: object) -> Slice:
    """An EndpointSlice as JSON has it. Endpoints that have no IP address are left out. Raises Malformed."""
    data = mapping(value, "EndpointSlice")
    family = data.get("addressType")
    if not isinstance(family, str):
        raise Malformed("an EndpointSlice has no addressType")
    found = (_endpoint(item, family) for item in _items(data, "endpoints"))
    return Slice(
        name_of(data),
        version_of(data),
        family,
        tuple(port for item in _items(data, "ports") for port in _port(item)),
        tuple(endpoint for endpoint in found if endpoint is not None),
    )


def _items(data: Json, key: str) -> Sequence[object]:
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed(f"`{key}` of an EndpointSlice is no list")
    return value


def _port(value: object) -> Iterable[tuple[str, int | None]]:
    item = mapping(value, "port")
    name, number = item.get("name") or "", item.get("port")
    if item.get("protocol", "TCP") != "TCP" or not isinstance(name, str):
        return
    if number is None or (isinstance(number, int) and not isinstance(number, bool) and 0 < number < 65536):
        yield name, number


def _endpoint(value: object, family: str) -> Endpoint | None:
    item = mapping(value, "endpoint")
    addresses = item.get("addresses")
    first = addresses[0] if isinstance(addresses, list) and addresses else None  # the others mean nothing (API's words)
    if not isinstance(first, str):
        return None
    try:
        ip = ip_address(first)
    except ValueError:
        return None
    if family != (IPV4 if ip.version == 4 else IPV6):
        return None
    conditions = item.get("conditions")
    conditions = conditions if isinstance(conditions, dict) else {}
    is_going = conditions.get("terminating") is True
    target = item.get("targetRef")
    target = target if isinstance(target, dict) and target.get("kind") == "Pod" else {}
    pod = target.get("name")
    is_named = isinstance(pod, str) and _POD.fullmatch(pod)
    zone = item.get("zone")
    return Endpoint(
        str(ip),
        str(pod) if is_named else "",
        zone if isinstance(zone, str) else "",
        conditions.get("ready") is not False,
        is_going,
        _hinted(item.get("hints")),
    )


def _hinted(value: object) -> tuple[str, ...]:
    """Zones for which an endpoint is; hints are advice, and what is not understood of them is none."""
    zones = value.get("forZones") if isinstance(value, dict) else None
    if not isinstance(zones, list):
        return ()
    names = (zone.get("name") for zone in zones[:MAX_ZONES] if isinstance(zone, dict))
    return tuple(name for name in names if isinstance(name, str))


# --- saying who the servers are ---------------------------------------------------------------------------------------


def servers(slices: Iterable[Slice], port: int | str | None, family: str, zone: str = "") -> View:
    """The servers of a service. slices: that which changed last comes last.

    port: its number or its name, None for the only one there is. family: `ipv4`, `ipv6`, or `auto`: IPv4 where there is
    any. zone: the one that comes first, "" for none.
    """
    every = list(slices)
    used = [item for item in every if item.family == _chosen(every, family)]
    found: dict[str, tuple[Endpoint, Address]] = {}
    problems: list[str] = []
    n_good = 0
    for item in used:
        if not item.endpoints:
            continue  # such a slice has no ports either
        number = _chosen_port(item, port)
        if isinstance(number, str):
            problems.append(number)
            continue
        n_good += 1
        for endpoint in item.endpoints:
            address = Address(endpoint.ip, number)
            found[str(address)] = endpoint, address
    if problems and not n_good:
        return View(Trouble(problems[0]))
    taken = sorted((key for key, (endpoint, _) in found.items() if endpoint.is_ready and not endpoint.is_going))
    going = frozenset(key for key, (endpoint, _) in found.items() if endpoint.is_going)
    are_hints_good = any(zone in found[key][0].for_zones for key in taken)
    answer = [
        Found(address, _name(endpoint, address), zone=endpoint.zone, far=_is_far(endpoint, zone, are_hints_good))
        for endpoint, address in map(found.__getitem__, taken)
    ]
    return View(answer, going, problems[0] if problems else _other_family(every, used))


def _is_far(endpoint: Endpoint, zone: str, are_hints_good: bool) -> bool:
    if not zone:
        return False
    if are_hints_good and endpoint.for_zones:
        return zone not in endpoint.for_zones
    return endpoint.zone not in ("", zone)


def _chosen(slices: Sequence[Slice], family: str) -> str:
    if family in _KEYS:
        return _KEYS[family]
    return next((known for known in _FAMILIES if any(item.family == known and item.endpoints for item in slices)), IPV4)


def _chosen_port(item: Slice, port: int | str | None) -> int | str:
    """The port's number, or what is wrong."""
    numbers = dict(item.ports)
    told = ", ".join(f"{name or 'unnamed'} ({number or 'any'})" for name, number in item.ports[:SHOWN]) or "none"
    if isinstance(port, int):
        if port in numbers.values() or None in numbers.values() or not numbers:
            return port
        return f"its endpoints have no TCP port {port}; they have: {told}"
    if port is None:
        if len(numbers) != 1:
            return (
                f"its endpoints have several TCP ports: {told}; say which with `port`"
                if numbers
                else ("its endpoints have no TCP port; give a number with `port`")
            )
        [number] = numbers.values()
    elif port in numbers:
        number = numbers[port]
    else:
        return f"its endpoints have no TCP port named {port}; they have: {told}"
    return number if number is not None else "its endpoints have any port; give a number with `port`"


def _other_family(every: Sequence[Slice], used: Sequence[Slice]) -> str:
    """Is there something, and nothing of it can be used?"""
    others = sorted({item.family for item in every if item.endpoints} - {item.family for item in used})
    if others and not any(item.endpoints for item in used):
        return f"its endpoints are of {' and '.join(others)}; say so with `family`"
    return ""


def _name(endpoint: Endpoint, address: Address) -> str:
    """With the address, since a pod of a StatefulSet has its name again elsewhere, before the old one is gone."""
    return f"{endpoint.pod}/{endpoint.ip}" if endpoint.pod else str(address)
