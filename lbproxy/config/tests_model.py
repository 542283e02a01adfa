"""Models of `tests`: requests, and where they must go (`lbproxy test`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

from lbproxy.config.http_rules import STATUS, HeaderMap
from lbproxy.config.notation import (
    HOST,
    LOCATION,
    METHOD,
    NAME,
    PATH,
    POOL_NAME,
    TEXT_SCHEMA,
    Notation,
    Section,
    Shorthand,
    integer,
    one_is_list,
    parse_path,
    setting,
)
from lbproxy.config.units import parse_name, parse_text

NONE: Final = "none"
State = Literal["up", "busy", "down", "refused", "ejected", "drain", "maint", "full"]
STATES: Final = get_args(State)
ROUTE: Final = integer(0, 10_000)


def parse_route(value: object) -> object:
    """The position of a route, or `none`."""
    if value == NONE:
        return NONE
    try:
        return ROUTE.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}, or none; the first route of a listener is 0") from None


def parse_target(value: object) -> str:
    """The target of a request: a path, with a query or without, or `*` (OPTIONS)."""
    text = parse_text(value)
    if "#" in text:
        raise ValueError(f"{text!r} has a fragment, which no client sends")
    return text if text == "*" else parse_path(text)


def parse_client(value: object) -> str:
    """An IP address, in its usual spelling, or the word for a client on a unix socket."""
    text = parse_text(value)
    if text == "unix":
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"expected an IP address, or unix, got {text!r}") from None


def parse_place(value: object) -> str:
    """`POOL/SERVER`, as the commands name servers."""
    text = parse_text(value)
    pool, slash, server = text.partition("/")
    if not (slash and pool and server):
        raise ValueError(f"expected POOL/SERVER or POOL/*, got {text!r}")
    return text


def matches(pattern: str, name: str) -> bool:
    """Is this the name of a server, where `*` stands for any text and `?` for a character? Brackets are an IPv6's."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None


ROUTE_OR_NONE: Final = Notation(
    "number from 0, or `none`", parse_route, {"anyOf": [{"const": NONE}, dict(ROUTE.schema)]}
)
TARGET: Final = Notation("path, with a query or without", parse_target, {"type": "string", "pattern": r"^(/|\*$)"})
CLIENT: Final = Notation("IP address, or `unix`", parse_client, {"type": "string"})
PLACE: Final = Notation("`POOL/SERVER`", parse_place, {"type": "string", "pattern": "^[^/]+/."})
SERVER_PATTERN: Final = Notation("name of a server", parse_name, TEXT_SCHEMA)


def expand_request(value: object) -> object:
    """`POST /predict` is a method and a path, `/predict` a path."""
    if not isinstance(value, str):
        return value
    first, space, rest = value.strip().partition(" ")
    return {"method": first, "path": rest.strip()} if space else {"path": first}


def expand_state(value: object) -> object:
    return {"state": value} if isinstance(value, str) else value


class TrialRequest(Section):
    listener: Annotated[str | None, NAME.or_unset()] = setting(
        None, "Name of the listener that gets the request. Needed where there are several."
    )
    method: Annotated[str, METHOD] = setting("GET", "Method, upper case.")
    path: Annotated[str, TARGET] = setting("/", "Path as it is sent, with a query or without.")
    host: Annotated[str, HOST] = setting("localhost", "Host of the request.")
    headers: HeaderMap = setting({}, "Further header names and values.")
    body: Annotated[str, Notation("text", parse_text, TEXT_SCHEMA)] = setting(
        "", "Body of the request, or its beginning, where that says where it goes (`match.json`, `json:/` keys)."
    )
    client: Annotated[str, CLIENT] = setting(
        "192.0.2.1",
        "Address that the connection comes from. From one of the `trusted_proxies` forwarding headers are believed.",
    )


class TrialServer(Section):
    """What is so at a server while the request comes."""

    state: State = setting(
        "up",
        "`up`, `busy`, `ejected`, `drain`, `maint`: as in the status. `down`: its checks fail, and it was up before, "
        "so that `fail_open` may use it. `refused`: nobody listens there. `full`: up, with `max_inflight` requests.",
    )
    inflight: Annotated[int, integer(0, 100_000)] = setting(0, "Requests that it has already (TCP: connections).")


class Expectation(Section):
    """What must come of the request; what is not said is not looked at."""

    route: Annotated[int | str | None, ROUTE_OR_NONE.or_unset()] = setting(
        None, "Position of the route that takes it, from 0, as in complaints about the file. `none`: no route."
    )
    pool: Annotated[str | None, POOL_NAME.or_unset()] = setting(
        None, "Pool that it goes to; of a split by chance, one that may get it. `none`: lbproxy itself answers."
    )
    server: Annotated[
        tuple[Annotated[str, SERVER_PATTERN], ...],
        Shorthand("name of a server, or a list", one_is_list, (SERVER_PATTERN.schema,)),
    ] = setting(
        (),
        "Server that it goes to, `*` and `?` as in a shell. Where the strategy has a choice it is asked 200 times, and "
        "every server that it names must be among these. `none`: it is refused, waits, or goes nowhere.",
    )
    status: Annotated[int | None, STATUS.or_unset()] = setting(
        None, "Status that lbproxy itself answers with. What a server would answer is not known here."
    )
    path: Annotated[str | None, PATH.or_unset()] = setting(
        None, "Path that the server gets, with its query, after `path_rules` and `rewrite`."
    )
    location: Annotated[str | None, LOCATION.or_unset()] = setting(None, "Where a redirect leads.")


class Trial(Section):
    """A request under given conditions, and what must come of it."""

    name: Annotated[str, Notation("text", lambda v: v if v == "" else parse_text(v), TEXT_SCHEMA)] = setting(
        "", "What it shows, for messages; the request if not set."
    )
    given: Mapping[
        Annotated[str, PLACE],
        Annotated[TrialServer, Shorthand("state, or a mapping", expand_state, ({"enum": list(STATES)},))],
    ] = setting(
        {},
        "Servers that are not simply up and idle, as `POOL/SERVER`: a state, or more as below. `*` and `?` in SERVER "
        "are as in a shell; the last entry that fits a server holds for it.",
    )
    request: Annotated[
        TrialRequest, Shorthand("`METHOD PATH`, or a mapping", expand_request, ({"type": "string"},))
    ] = setting(..., "The request. `POST /predict` and `/predict` are short for a mapping with `method` and `path`.")
    expect: Expectation = setting(..., "What must come of it, at least one key.")
