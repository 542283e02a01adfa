"""Models of what may be said about single requests: routes, matches, header edits, redirects, fixed answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from lbproxy.api_keys import name_problem
from lbproxy.config.body_rules import SPLIT, BodyMatch, Split
from lbproxy.config.notation import (
    BYTES_OR_ZERO,
    FIELD_NAME,
    FIELD_VALUE,
    FLAG,
    HOST_PATTERN,
    LOCATION,
    MATCH_PATH,
    METHOD,
    NAME,
    OFF_SCHEMA,
    OR_OFF,
    POOL_NAME,
    REGEX,
    SECONDS,
    TEXT,
    Notation,
    Section,
    Shorthand,
    integer,
    one_is_list,
    parse_location,
    parse_token,
    setting,
    switch,
)
from lbproxy.config.units import is_off, parse_text

HeaderMap = Mapping[Annotated[str, FIELD_NAME], Annotated[str, FIELD_VALUE]]
RetryCause = Literal["connect", "reset", "timeout"]
GrpcStatus = Literal["unavailable", "resource_exhausted", "aborted"]
STATUS: Final = integer(100, 599)


def parse_protocol(value: object) -> str:
    """A protocol name or name/version of the Upgrade field, in lower case.

    What carries HTTP is refused: through such a tunnel requests would pass that no route, limit or log ever sees.
    """
    name, slash, version = parse_text(value).lower().partition("/")
    parse_token(name)
    if slash:
        parse_token(version)
    if name in ("h2c", "h2", "h3", "http", "tls"):
        raise ValueError(f"{name} would carry requests past lbproxy; it cannot be allowed")
    return name + slash + version


PROTOCOL: Final = Notation("protocol", parse_protocol, {"type": "string", "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z/-]+$"})
PROTOCOLS: Final = Shorthand(
    "list of protocols, one, or `off`",
    lambda value: value if value is None else () if is_off(value) else one_is_list(value),
    (OFF_SCHEMA, PROTOCOL.schema),
)


def off_is_no_retry(value: object) -> object:
    return {"attempts": 0} if is_off(value) else value


def parse_key_name(value: object) -> str:
    """The name of an API key, or `*` for any."""
    name = parse_text(value)
    if name != "*" and (problem := name_problem(name)):
        raise ValueError(problem)
    return name


KEY_NAME: Final = Notation("name of an API key", parse_key_name, TEXT.schema)
KEY_WORDS: Final = ("required", "optional", "off")


def parse_key_rule(value: object) -> str | tuple[str, ...]:
    """`required`, `optional`, `off`, or the names of the keys that are let in."""
    if is_off(value):
        return "off"
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("is an empty list, which lets nobody in; write required, optional or off, or name keys")
        return tuple([parse_key_name(name) for name in value])
    word = parse_text(value)
    if word not in KEY_WORDS:
        raise ValueError(f"expected required, optional, off or a list of names, got {word!r}; did you mean [{word}]?")
    return word


KEY_RULE: Final = Notation(
    "`required`, `optional`, `off` or a list of names",
    parse_key_rule,
    {
        "anyOf": [
            {"enum": ["required", "optional"]},
            dict(OFF_SCHEMA),
            {"type": "array", "items": dict(TEXT.schema), "minItems": 1},
        ]
    },
)


class HeaderEdits(Section):
    set: HeaderMap = setting(
        {}, "Header names and values: whatever was there under a name is replaced by this one field."
    )
    add: HeaderMap = setting({}, "Header names and values that are added behind what is there.")
    remove: tuple[Annotated[str, FIELD_NAME], ...] = setting(
        (), "Header names, in any case, whose fields are removed. Removing comes first, then `set`, then `add`."
    )


class HeaderRules(Section):
    request: HeaderEdits = setting(HeaderEdits(), "Changes to the request before it goes to the server.")
    response: HeaderEdits = setting(HeaderEdits(), "Changes to the response before it goes to the client.")


class HeadMatch(Section):
    """What a rule asks of the head of a request."""

    host: Annotated[str | None, HOST_PATTERN.or_unset()] = setting(
        None,
        "Host of the request, compared without case and port. `*.example.com` stands for exactly one label before "
        "`example.com`.",
    )
    path: Annotated[str | None, MATCH_PATH.or_unset()] = setting(
        None, "The whole path, without the query. Unreserved characters are decoded before paths are compared."
    )
    path_prefix: Annotated[str | None, MATCH_PATH.or_unset()] = setting(
        None,
        "Beginning of the path, at a segment boundary: `/api` matches `/api` and `/api/x`, not `/apix`; "
        "`/api/` does not match `/api`.",
    )
    path_regex: Annotated[str | None, REGEX.or_unset()] = setting(
        None,
        "Regular expression (Python `re`) that must match from the start of the path; what follows is free unless it "
        "ends in `$`.",
    )
    methods: Annotated[
        tuple[Annotated[str, METHOD], ...], Shorthand("list of methods, or one", one_is_list, (METHOD.schema,))
    ] = setting((), "Methods, upper case, of which the request must have one. Empty: any method.")
    headers: HeaderMap = setting(
        {}, "Header names (in any case) and the exact values that the request must carry; `*` is any value."
    )
    query: Mapping[Annotated[str, TEXT], Annotated[str, TEXT]] = setting(
        {},
        "Names and exact values of query parameters that the request must carry, percent-decoded; `*` is any value.",
    )
    api_key: Annotated[str | None, KEY_NAME.or_unset()] = setting(
        None, "Name of the API key that the request must carry (`api_keys`); `*`: any good one."
    )


class Match(HeadMatch, BodyMatch):
    """What a route asks of a request."""


class PoolTimeoutsOverride(Section):
    connect: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest time until a connection to a server stands. Not set: the pool's."
    )
    tls_handshake: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest TLS handshake with a server. Not set: the pool's."
    )
    response_head: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest time from the end of the request to the head of the final response. Not set: the pool's."
    )
    read: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest pause between two reads of a response body. Not set: the pool's."
    )
    write: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest time without progress while a request is sent to a server. Not set: the pool's."
    )
    total: Annotated[float | None, SECONDS.or_unset()] = setting(
        None,
        "Longest time of a request from its head to the end of the response, retries included. Not set: the pool's.",
    )
    tunnel: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest silence of a tunnel (WebSocket) in both directions. Not set: the pool's."
    )
    half_closed: Annotated[float | None, SECONDS.or_unset()] = setting(
        None, "Longest silence of a tunnel of which one direction has ended. Not set: the pool's."
    )


class RetryOverride(Section):
    attempts: Annotated[int | None, integer(0, 10).or_unset()] = setting(
        None, "Extra tries after the first. 0: never retry. Not set: the pool's."
    )
    on: tuple[RetryCause, ...] | None = setting(None, "Failures that may be retried. Not set: the pool's.")
    status: tuple[Annotated[int, STATUS], ...] | None = setting(
        None, "Response statuses that may be retried. Not set: the pool's."
    )
    grpc: tuple[GrpcStatus, ...] | None = setting(None, "gRPC statuses that may be retried. Not set: the pool's.")
    idempotent: Annotated[bool | None, FLAG.or_unset()] = setting(
        None, "Every request of this route may be repeated, whatever its method. Not set: the pool's."
    )
    body_bytes: Annotated[int | None, BYTES_OR_ZERO.or_unset()] = setting(
        None, "Longest request body that is kept for a retry. Not set: the pool's."
    )
    unacked: Annotated[Literal["auto", "on", "off"] | None, switch("auto", "on", "off")] = setting(
        None, "As in the pool: retry any method on a reused connection that ended unread. Not set: the pool's."
    )
    idempotency_key: Annotated[bool | None, FLAG.or_unset()] = setting(
        None, "A request with an `Idempotency-Key` header may be repeated. Not set: the pool's."
    )
    trust_retry_after: Annotated[bool | None, FLAG.or_unset()] = setting(
        None, "A 503 with `Retry-After` may be retried with any method, if `status` has 503. Not set: the pool's."
    )


class Rewrite(Section):
    strip_prefix: Annotated[str | None, MATCH_PATH.or_unset()] = setting(
        None, "Beginning of the path that is cut off, at a segment boundary. A path without it is left alone."
    )
    path_prefix: Annotated[str | None, MATCH_PATH.or_unset()] = setting(
        None, "Put before the path, after `strip_prefix` was cut off."
    )


_PLACE: Final = re.compile(r"\{[^{}]*\}?|\}")
PLACES: Final = ("{host}", "{path}", "{query}")


def parse_redirect(value: object) -> str:
    """A location in which {host}, {path} and {query} may stand for those of the request."""
    text = parse_location(value)
    for found in _PLACE.finditer(text):
        if found[0] not in PLACES:
            raise ValueError(f"{found[0]!r} is none of {', '.join(PLACES)}; a brace of the URL itself is %7B or %7D")
    before, path, _ = text.partition("{path}")
    if path and before.endswith("/"):
        raise ValueError("{path} begins with a slash itself; without the one before it, no path can name another host")
    before, query, behind = text.partition("{query}")
    if query and ("?" in before or "#" in before or behind):
        raise ValueError("{query} brings its own `?`, so it stands at the end, and nothing before it has a `?` or `#`")
    return text


REDIRECT: Final = Notation("URL or path", parse_redirect, LOCATION.schema)


class Redirect(Section):
    status: Literal[301, 302, 303, 307, 308] = setting(302, "Status of the redirect.")
    location: Annotated[str, REDIRECT] = setting(
        ...,
        "Value of the `Location` header: a URL or a path. `{host}` (without port), `{path}` and `{query}` (with its "
        "`?`, if there is one) stand for those of the request: `https://{host}{path}{query}`. The path is normalised, "
        "whatever `path_rules` says.",
    )


class Respond(Section):
    status: Annotated[int, integer(200, 599)] = setting(200, "Status of the answer.")
    headers: HeaderMap = setting({}, "Header fields of the answer. `Content-Length` is made by lbproxy.")
    body: Annotated[str, TEXT] = setting("", "Body of the answer, sent as UTF-8.")


class Route(Section):
    name: Annotated[str | None, NAME.or_unset()] = setting(
        None,
        "Name in metrics (`lbproxy_route_requests_total`) and for `lbproxy split`; without one it has no such row.",
    )
    match: Match | None = setting(
        None, "What a request must look like: every condition holds. Without `match` the route takes every request."
    )
    pool: Annotated[str | None, POOL_NAME.or_unset()] = setting(
        None, "Pool that answers. A route has either this, `split`, `redirect` or `respond`."
    )
    split: Annotated[Split | None, SPLIT] = setting(
        None, "Pools that share the requests of this route, and their shares: `{stable: 95, canary: 5}`."
    )
    timeouts: PoolTimeoutsOverride | None = setting(None, "Time-outs of the pool, changed for this route.")
    retry: Annotated[
        RetryOverride | None,
        Shorthand("`off` or a mapping", off_is_no_retry, OR_OFF.schemas),
    ] = setting(None, "Retry rules of the pool, changed for this route. `off`: no retry.")
    upgrade: Annotated[tuple[Annotated[str, PROTOCOL], ...] | None, PROTOCOLS] = setting(
        None,
        "Protocols that a request may switch to (`Upgrade`, RFC 9110 section 7.8), such as `websocket`; `irc` stands "
        "for every version, `irc/6.9` for one. All others are taken out of the request. HTTP itself (`h2c`) and `tls` "
        "cannot be listed. Not set: the listener's.",
    )
    api_keys: Annotated[str | tuple[str, ...] | None, KEY_RULE.or_unset()] = setting(
        None,
        "Who may use this route. `required`: whoever has a good API key, others get 401. A list of names: whoever has "
        "a key of one of them, other good keys get 403. `optional`: everybody but those with a key that is not good. "
        "`off`: everybody, whatever their key. Not set: what `required` of the top level's `api_keys` says.",
    )
    headers: HeaderRules | None = setting(None, "Header changes of this route, done after those of the pool.")
    rewrite: Rewrite | None = setting(None, "Changes to the path before the request goes to the server.")
    redirect: Redirect | None = setting(None, "Answer with a redirect.")
    respond: Respond | None = setting(None, "Answer with a fixed response.")

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of those that it leads to."""
        if self.split is not None:
            return tuple(self.split.pools)
        return () if self.pool is None else (self.pool,)
