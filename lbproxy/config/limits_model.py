"""Models of who may ask, and how much: API keys and rate limits."""

from __future__ import annotations

import re
from typing import Annotated, Final

from lbproxy.config.http_rules import HeadMatch
from lbproxy.config.notation import (
    FIELD_NAME,
    FILE,
    FLAG,
    NAME,
    SECONDS,
    TEXT_SCHEMA,
    JsonSchema,
    Notation,
    Section,
    Shorthand,
    integer,
    setting,
)
from lbproxy.config.store_url import read_store_url
from lbproxy.config.units import Rate, is_off, parse_rate, parse_text, shown
from lbproxy.request_key import RequestKey, read_key

MOST_PER_SECOND: Final = 1_000_000
ALL: Final = "all"
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE: Final = r"^[1-9][0-9]*(/(s|m|h|d)| in .+)$"
_per = re.compile(r"([1-9][0-9]{0,9}) ?/ ?(s|m|h|d|sec|min|second|minute|hour|day)").fullmatch


def parse_limit_rate(value: object) -> Rate:
    """`100/s`, `6000/m`, `10/h`, `1/d`, or `100 in 10s`."""
    if isinstance(value, Rate):
        rate = value
    elif isinstance(value, str) and (found := _per(value)):
        rate = Rate(int(found[1]), _UNITS[found[2][0]])
    elif isinstance(value, str) and " in " in value:
        rate = parse_rate(value)
    elif is_off(value):
        raise ValueError("cannot be off; remove the limit")
    else:
        hint = f"; did you mean {shown(value)}/s?" if isinstance(value, int) and not isinstance(value, bool) else ""
        raise ValueError(f"expected a rate such as 100/s, 6000/m, 10/h or 100 in 10s, got {shown(value)}{hint}")
    if rate.count / rate.seconds > MOST_PER_SECOND:
        raise ValueError(f"{MOST_PER_SECOND}/s is the most")
    return rate


def parse_limit_key(value: object) -> str:
    """What requests are counted by: `all`, or a key that is in the head."""
    text = parse_text(value)
    if text == ALL:
        return text
    try:
        key: RequestKey = read_key(text)
    except ValueError as error:
        raise ValueError(str(error).replace("expected client_ip", "expected all, client_ip")) from None
    if key.pointer is not None:
        raise ValueError("a rate limit looks at the head alone, which has no JSON; such as header:X-Tenant or api_key")
    return text


def parse_store_url(value: object) -> str:
    """A URL of Redis, as its own tools write it."""
    text = parse_text(value)
    read_store_url(text)
    return text


STORE_URL: Final = Notation("URL of Redis", parse_store_url, {"type": "string", "pattern": "^(rediss?|unix)://"})
LIMIT_RATE: Final = Notation(
    "`100/s`, `6000/m`, `10/h`, or a rate", parse_limit_rate, {"type": "string", "pattern": _RATE}
)
LIMIT_KEY: Final = Notation(
    "`all`, `client_ip`, `api_key`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path` or `host`",
    parse_limit_key,
    TEXT_SCHEMA,
)
_LOCAL: Final[JsonSchema] = {"const": "local"}


class ApiKeys(Section):
    file: Annotated[str, FILE] = setting(
        ...,
        "File of the keys' names and hashes, a line each; `lbproxy key new NAME --file FILE` writes one. Relative to "
        "this file's folder; read again when it changes, and with each reload.",
    )
    header: Annotated[str, FIELD_NAME] = setting(
        "X-API-Key", "Header in which clients send their key. Of `Authorization` it is what follows `Bearer`."
    )
    query: Annotated[
        str | None, Notation("name", lambda v: None if v is None or is_off(v) else NAME.parse(v), TEXT_SCHEMA)
    ] = setting(
        "off",
        "Name of a query parameter in which a key may be sent, too, for clients that can't send headers. What is in it "
        "does not get into the access log, but perhaps into those of others.",
    )
    required: Annotated[bool, FLAG] = setting(
        True,
        "Whether requests need a good key where their route says nothing else. `false`: keys only name clients; one "
        "that is not good is still refused.",
    )


class LimitStore(Section):
    url: Annotated[str, STORE_URL] = setting(
        ..., "`redis://[USER:PASSWORD@]HOST:PORT/DB`, `rediss://` for TLS, or `unix://PATH?db=DB`."
    )
    timeout: Annotated[float, SECONDS] = setting(
        "5ms", "Longest wait for Redis; a request that has waited so long goes on as the local limit says."
    )


def expand_store(value: object) -> object:
    if value is None or value == "local":
        return None
    return value if isinstance(value, (dict, LimitStore)) else {"url": value}


class RateLimit(Section):
    name: Annotated[str, Notation("name", lambda v: v if v == "" else NAME.parse(v), TEXT_SCHEMA)] = setting(
        "", "Name in metrics, logs and answers. Not set: its `key`."
    )
    key: Annotated[str, LIMIT_KEY] = setting(
        ...,
        "What has a bucket of its own. `client_ip`: each client address (IPv6: each /64); `api_key`: each name of a "
        "key; `all`: one for all requests. A request without such a header, cookie, parameter or key is not limited.",
    )
    rate: Annotated[Rate, LIMIT_RATE] = setting(..., "So many requests in so long, spread evenly.")
    burst: Annotated[int | None, integer(1, 10_000_000).or_unset()] = setting(
        None, "Requests that may come at once after a pause. Not set: those of one second at `rate`, at least 1."
    )
    match: HeadMatch | None = setting(None, "Which requests it counts, as in routes. Not set: all.")
    status: Annotated[int, integer(400, 599)] = setting(429, "Status of the answer to a request that is too many.")
    store: Annotated[
        LimitStore | None, Shorthand("`local`, a URL of Redis, or a mapping", expand_store, (_LOCAL, STORE_URL.schema))
    ] = setting(
        None,
        "Where the buckets are. Not set, or `local`: in lbproxy, for all its workers. A URL: in Redis, for all "
        "lbproxies that use it ([more](limits.md#a-fleet)).",
    )

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.key

    @property
    def most_at_once(self) -> int:
        """`burst`, with its default."""
        return self.burst or max(1, round(self.rate.count / self.rate.seconds))


__all__ = ["ApiKeys", "LimitStore", "RateLimit"]
