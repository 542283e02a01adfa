"""Models of a pool: its servers and everything that is said about talking to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator

from lbproxy.address import Address
from lbproxy.config.discovery_model import Discovery
from lbproxy.config.http_rules import STATUS, GrpcStatus, HeaderMap, HeaderRules, RetryCause, off_is_no_retry
from lbproxy.config.kinds import KIND, with_kind
from lbproxy.config.notation import (
    BYTES,
    BYTES_OR_ZERO,
    FILE,
    FLAG,
    HOST,
    HOST_NAME,
    METHOD,
    OFF_SCHEMA,
    OR_OFF,
    PATH,
    REGEX,
    RESOLVER,
    SECONDS,
    SECONDS_OR_ZERO,
    SHARE,
    SRV_NAME,
    TEXT,
    TEXT_SCHEMA,
    Notation,
    Section,
    Shorthand,
    integer,
    setting,
    switch,
)
from lbproxy.config.queue_model import Queue as Queue
from lbproxy.config.server_model import (
    BUILT_IN_STRATEGIES,
    COUNT,
    AnyServer,
    StrategySpec,
    as_written,
    expand_servers,
)
from lbproxy.config.server_model import ServerSpec as ServerSpec
from lbproxy.config.slips import NEVER
from lbproxy.config.units import is_off, parse_text, shown


class Dns(Section):
    interval: Annotated[float, SECONDS] = setting(
        "5s",
        "How often names in `servers`, and `srv`, are resolved again, whatever the TTL; also at once after a failed "
        "connect.",
    )
    srv: Annotated[str | None, SRV_NAME.or_unset()] = setting(
        None,
        "Name of an SRV record, such as `_predict._tcp.example.org`: each of its targets is a server, with the port "
        "and weight that stand there. The lowest priority is the pool, higher ones are backups. Those of `servers` and "
        "`servers_file`, if these are given too, come in addition.",
    )
    servers: tuple[Annotated[Address, RESOLVER], ...] = setting(
        (), "Resolvers to ask for `srv`, in this order, instead of those in /etc/resolv.conf: `IP` or `IP:port`."
    )
    hold: Annotated[float, SECONDS_OR_ZERO] = setting(
        "5m",
        "How long the last servers of `srv` stay in use when the resolver says that there is no such name or record. "
        "Where it fails or does not answer they stay.",
    )


def parse_status_ranges(value: object) -> tuple[tuple[int, int], ...]:
    """`200-399`, `200`, `200,204,300-399` or a list of these -> inclusive ranges."""
    items = value if isinstance(value, (list, tuple)) else parse_text(value).split(",")
    ranges: list[tuple[int, int]] = []
    for item in items:
        found = re.fullmatch(r"\s*([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?\s*", parse_text(item))
        if not found or int(found.group(1)) > int(found.group(2) or found.group(1)):
            raise ValueError(f"expected statuses such as 200, 200-399 or 200,204, got {shown(item)}")
        ranges.append((int(found.group(1)), int(found.group(2) or found.group(1))))
    if not ranges:
        raise ValueError("needs at least one status; without any, no check could pass")
    return tuple(ranges)


def parse_cookie(value: object) -> str:
    """A token (RFC 6265 section 4.1.1)."""
    text = parse_text(value)
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}", text):
        raise ValueError(f"expected the name of a cookie, 1 to 64 letters, digits, `_` or `-`, got {shown(value)}")
    return text


COOKIE: Final = Notation("name of a cookie", parse_cookie, dict(TEXT_SCHEMA))


def parse_cookie_path(value: object) -> str:
    """What may stand behind `Path=` (RFC 6265 section 4.1.1): no `;`, no control characters."""
    text = parse_text(value)
    if not re.fullmatch(r"/[!-:<-~]{0,255}", text):
        raise ValueError(f"expected a path that starts with / and has no `;`, got {shown(value)}")
    return text


COOKIE_PATH: Final = Notation("path", parse_cookie_path, {"type": "string", "pattern": "^/"})

STATUS_RANGES: Final = Notation(
    "statuses such as `200-399`",
    parse_status_ranges,
    {"anyOf": [dict(TEXT_SCHEMA), {"type": "array", "items": dict(TEXT_SCHEMA), "minItems": 1}]},
)


class Expect(Section):
    status: Annotated[tuple[tuple[int, int], ...], STATUS_RANGES] = setting(
        "200-399", "HTTP: statuses that pass: one, a range, or several with commas."
    )
    body: Annotated[str | None, REGEX.or_unset()] = setting(
        None, "HTTP: regular expression that must be found in the first 64 KiB of the body."
    )
    text: Annotated[str | None, TEXT.or_unset()] = setting(
        None, "TCP: text that the server's answer must begin with; `expect: TEXT` is the same."
    )


def _expect_from_text(value: object) -> object:
    return {"text": value} if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value


class PoolTls(Section):
    verify: Annotated[bool, FLAG] = setting(
        True,
        "Whether the server's certificate must be trusted, valid and for its name. `false` only to try things out.",
    )
    ca: Annotated[str | None, FILE.or_unset()] = setting(
        None, "File of the CA certificates to trust, PEM; those of the system if not set. Read again when it changes."
    )
    server_name: Annotated[str | None, HOST_NAME.or_unset()] = setting(
        None, "Name to ask for (SNI) and to verify; if not set, the host as it is written in `servers`."
    )
    cert: Annotated[str | None, FILE.or_unset()] = setting(
        None, "File of the client certificate that is shown to servers, PEM. Read again when it changes."
    )
    key: Annotated[str | None, FILE.or_unset()] = setting(None, "File of its private key, PEM, without a passphrase.")


def tls_from_flag(value: object) -> object:
    return None if is_off(value) else {} if value is True else value


TRUE_OR_TLS: Final = Shorthand("`true`, `off` or a mapping", tls_from_flag, (OFF_SCHEMA, {"const": True}))


class HealthCheck(Section):
    type: Literal["tcp", "http", "grpc"] = setting(
        "tcp",
        "`tcp`: a connection is accepted. `http`: a request is answered as expected. `grpc`: the server says by "
        "`grpc.health.v1` that it serves. Not set: `http` where a key is there that only HTTP has, such as `path`, "
        "`grpc` where there is `service`.",
    )
    service: Annotated[str | None, TEXT.or_unset()] = setting(
        None, "gRPC: name of the service that is asked for; the server as a whole if not set."
    )
    method: Annotated[str, METHOD] = setting("GET", "HTTP: method of the check.")
    path: Annotated[str, PATH] = setting("/", "HTTP: path, with query if needed.")
    host: Annotated[str | None, HOST.or_unset()] = setting(None, "HTTP: Host header; the server's address if not set.")
    headers: HeaderMap = setting({}, "HTTP: further request headers.")
    body: Annotated[str | None, TEXT.or_unset()] = setting(None, "HTTP: request body, sent as UTF-8.")
    expect: Annotated[Expect, Shorthand("a text for TCP, or a mapping", _expect_from_text, ({"type": "string"},))] = (
        setting(Expect(), "What passes: a mapping for HTTP, a text for TCP.")
    )
    send: Annotated[str | None, TEXT.or_unset()] = setting(None, "TCP: text that is sent after connecting, as UTF-8.")
    port: Annotated[int | None, integer(1, 65535).or_unset()] = setting(
        None, "Port that is checked instead of the server's own."
    )
    interval: Annotated[float, SECONDS] = setting("2s", "Time between two checks of a server.")
    timeout: Annotated[float, SECONDS] = setting("2s", "Longest time of one check; should not exceed `interval`.")
    rise: Annotated[int, integer(1, 100)] = setting(2, "Passes in a row that bring a server back.")
    fall: Annotated[int, integer(1, 100)] = setting(3, "Failures in a row that take a server out.")
    busy_window: Annotated[float, SECONDS] = setting(
        "10s", "A check that times out does not count while the server made progress within this time."
    )
    tls: Annotated[PoolTls | None, TRUE_OR_TLS] = setting(
        None, "TLS of the check: as `tls` of the pool if not set. `off`: plain text. `true`: TLS with the defaults."
    )


def expand_health_check(value: object) -> object:
    if is_off(value):
        return None
    if value in ("tcp", "grpc"):
        return {"type": value}
    if isinstance(value, str):
        if value.startswith("/"):
            return {"type": "http", "path": value}
        if value.lower() in ("on", "yes", "true"):
            raise ValueError(
                f"expected off, tcp, grpc, a path that starts with /, or a mapping, got {value!r}; leave it out: "
                "without it connections are tried; a path asks the application"
            )
        path = re.sub(r"^https?://[^/]*", "", value)
        hint = "/" if value == "http" else f"/{path.lstrip('/')}" if path and path.lower() not in NEVER else "off"
        raise ValueError(
            f"expected off, tcp, grpc, a path that starts with /, or a mapping, got {value!r}; did you mean {hint}?"
        )
    if isinstance(value, dict) and "type" not in value:
        if says_http(value):
            return {**value, "type": "http"}
        if "service" in value:
            return {**value, "type": "grpc"}
    return value


HTTP_CHECK_KEYS: Final = ("method", "path", "host", "headers", "body")


def says_http(check: Mapping[str, object]) -> bool:
    """Whether a mapping without `type` has what only an HTTP check has."""
    expect = check.get("expect")
    return any(name in check for name in HTTP_CHECK_KEYS) or (
        isinstance(expect, dict) and ("status" in expect or "body" in expect)
    )


class RetryBudget(Section):
    ratio: Annotated[float, SHARE] = setting(
        0.2, "Retries as a share of the requests: of those in progress, and of those of the last 10 s."
    )
    min: Annotated[int, integer(0, 1000)] = setting(3, "Retries at once, and a second, that are always allowed.")


class RetryBackoff(Section):
    base: Annotated[float, SECONDS_OR_ZERO] = setting(
        "25ms", "Longest wait before the first retry; 3 times that before the second, 7 times before the third."
    )
    max: Annotated[float, SECONDS_OR_ZERO] = setting("250ms", "Longest wait before any retry.")


class Retry(Section):
    attempts: Annotated[int, integer(0, 10)] = setting(2, "Extra tries after the first. 0: never retry.")
    on: tuple[RetryCause, ...] = setting(
        ("connect", "reset"),
        "Failures that may be retried. `connect`: no connection was made, any method is safe. `reset`: closed or reset "
        "before the first byte of the response, only idempotent requests are safe. `timeout`: `timeouts.response_head` "
        "is over, idempotent requests only; the server may still be at work on the first one.",
    )
    status: tuple[Annotated[int, STATUS], ...] = setting(
        (), "Response statuses that may be retried, if the request is idempotent. Empty: none."
    )
    idempotent: Annotated[bool, FLAG] = setting(
        False, "Every request to this pool may be repeated, whatever its method. Right for pure predictions."
    )
    grpc: tuple[GrpcStatus, ...] = setting(
        (),
        "gRPC statuses that may be retried, if the request is idempotent and the server has sent no message yet: "
        "`unavailable`, `resource_exhausted`, `aborted`. Empty: none.",
    )
    body_bytes: Annotated[int, BYTES_OR_ZERO] = setting(
        "1MiB", "Longest request body that is kept for a retry. A request with a longer one is not retried once sent."
    )
    unacked: Annotated[Literal["auto", "on", "off"], switch("auto", "on", "off")] = setting(
        "auto",
        "Retry any method when a reused connection turns out to have been closed by the server before it acknowledged "
        "a byte of the request. `auto`: on for unix, loopback and on-link addresses.",
    )
    idempotency_key: Annotated[bool, FLAG] = setting(
        False, "A request with an `Idempotency-Key` header may be repeated."
    )
    trust_retry_after: Annotated[bool, FLAG] = setting(
        False, "A 503 with `Retry-After` may be retried with any method, if `status` has 503."
    )
    budget: RetryBudget = setting(
        RetryBudget(),
        "Bound on retries, so that they do not multiply an outage. Those after a connection that could not be made or "
        "was stale are not counted.",
    )
    backoff: RetryBackoff = setting(
        RetryBackoff(), "Wait before a retry, drawn at random; none after a connection that could not be made."
    )


class PoolTimeouts(Section):
    connect: Annotated[float, SECONDS] = setting("3s", "Longest time until a connection to a server stands.")
    tls_handshake: Annotated[float, SECONDS] = setting(
        "3s", "Longest TLS handshake with a server, after the connection stands."
    )
    response_head: Annotated[float, SECONDS] = setting(
        "60s", "Longest time from the end of the request to the head of the final response; then 504."
    )
    read: Annotated[float, SECONDS] = setting(
        "60s",
        "Longest pause between two reads of a response body; what the server still takes of the request counts too. "
        "Not used in TCP mode.",
    )
    write: Annotated[float, SECONDS] = setting("30s", "Longest time without progress while data is sent to a server.")
    total: Annotated[float | None, SECONDS.or_off()] = setting(
        "off", "Longest time of a request from its head to the end of the response, retries included."
    )
    tunnel: Annotated[float, SECONDS] = setting(
        "10m", "Longest silence, in both directions, of a tunnel (WebSocket) or a TCP connection."
    )
    half_closed: Annotated[float, SECONDS] = setting(
        "30s", "Longest silence of a tunnel or TCP connection of which one direction has ended."
    )


class CircuitBreaker(Section):
    failures: Annotated[int, COUNT] = setting(5, "Failures in a row that eject a server.")
    error_rate: Annotated[float, SHARE] = setting(0.5, "Share of failures within `window` that ejects a server.")
    min_requests: Annotated[int, COUNT] = setting(20, "Requests within `window` before the share counts.")
    window: Annotated[float, SECONDS] = setting("10s", "Time over which the share is taken.")
    open: Annotated[float, SECONDS] = setting("10s", "Time that a server stays out; doubles with each ejection.")
    max_open: Annotated[float, SECONDS] = setting("300s", "Longest time that a server stays out.")
    probes: Annotated[int, integer(1, 100)] = setting(
        1, "Real requests at once that try out a server whose time is over. A success brings it back."
    )
    max_ejected: Annotated[float, SHARE] = setting(
        0.5, "Share of the servers that may be out at once, rounded down. The last usable one is never ejected."
    )
    status: tuple[Annotated[int, STATUS], ...] = setting(
        (502, 503, 504), "Statuses that count as failures; 429, and 503 with `Retry-After`, never do."
    )


class KeepAlive(Section):
    idle: Annotated[int, integer(1, 65535)] = setting(64, "Idle connections kept per server.")
    idle_timeout: Annotated[float, SECONDS] = setting(
        "60s", "Time after which an idle connection is closed; sooner where the server would close it first."
    )
    max_requests: Annotated[int | None, COUNT.or_off()] = setting(
        "off", "Requests after which a connection is closed; up to a tenth fewer, at random."
    )
    max_age: Annotated[float | None, SECONDS.or_off()] = setting(
        "off", "Age at which a connection is closed once it is idle; up to a tenth less, at random."
    )
    ping: Annotated[float | None, SECONDS.or_off()] = setting(
        "30s",
        "HTTP/2: after so much silence of a server that has work in flight it is sent a PING. If nothing comes within "
        "the same time, 10 s at most, the connection is given up.",
    )


class PoolLimits(Section):
    head_bytes: Annotated[int, BYTES] = setting("64KiB", "Longest head of a response; a longer one is 502.")
    headers: Annotated[int, integer(1, 10_000)] = setting(200, "Most header fields of a response; more are 502.")
    interim_responses: Annotated[int, integer(1, 1000)] = setting(
        16, "Most 1xx responses before the final one, and one more for every 5 s of waiting; more are 502."
    )


class Sticky(Section):
    cookie: Annotated[str, COOKIE] = setting(..., "Name of the cookie; another one for each pool.")
    secret: Annotated[str | None, TEXT.or_unset()] = setting(
        None,
        "Key that signs the cookies, 16 characters at least, the same in every lbproxy before these servers. Required; "
        "`openssl rand -hex 32` makes one.",
    )
    max_age: Annotated[float | None, SECONDS.or_unset()] = setting(
        None,
        "Life of a cookie, renewed by who comes in its second half; as long as the browser runs if not set.",
    )
    path: Annotated[str, COOKIE_PATH] = setting("/", "Path of the cookie.")
    same_site: Literal["lax", "strict", "none"] = setting("lax", "SameSite attribute of the cookie.")
    secure: Annotated[Literal["auto", "on", "off"], switch("auto", "on", "off")] = setting(
        "auto", "Secure attribute of the cookie. `auto`: where the client came over TLS."
    )
    wait: Annotated[float, SECONDS_OR_ZERO] = setting(
        "0s",
        "How long a request waits for its own server where that is at its `max_inflight`, before it goes to another. "
        "With `workers: 1` only.",
    )


class Pool(Section):
    """Interchangeable servers and how to talk to them."""

    kind: Annotated[str | None, KIND.or_unset()] = setting(
        None,
        "What program the servers are: changes the defaults of this pool to those that fit it ([kinds](#kinds)). Own "
        "keys win, one by one. `lbproxy doctor` says which kind servers are.",
    )
    strategy: Annotated[
        StrategySpec,
        Shorthand(
            "name of a strategy, or a mapping", as_written, ({"enum": list(BUILT_IN_STRATEGIES)}, {"type": "string"})
        ),
    ] = setting(
        StrategySpec(name="least_connections"),
        "How a server is chosen among those that may take the request. `round_robin`: in turn. `weighted_round_robin`: "
        "in turn, as often as the weight says. `least_connections`: fewest requests in progress. `ip_hash`: the same "
        "client address, the same server. `random`: any. `power_of_two`: the less loaded of two drawn at random. "
        "`peak_ewma`: of two drawn at random the one that is likely to answer first. `consistent_hash`: the same "
        "`key`, the same server. `first`: the first one below its `max_inflight`. Or a strategy of your own.",
    )
    servers: Annotated[tuple[AnyServer, ...], AfterValidator(expand_servers)] = setting(
        (),
        "The servers, in this order: addresses, or mappings where there is more to say. Required, unless "
        "`servers_file`, `dns.srv` or `discovery` brings some.",
    )
    servers_file: Annotated[str | None, FILE.or_unset()] = setting(
        None,
        "A file with a YAML or JSON list of servers, each as in `servers` but without names that need DNS; `[]` for "
        "none. It is watched: what is added, changed or removed there is so at once. Relative to this file's folder.",
    )
    dns: Dns = setting(Dns(), "Resolution of names in `servers`.")
    discovery: Discovery | None = setting(
        None,
        "A platform that knows who the servers are, and is followed while lbproxy runs: one of the keys below. Those "
        "of `servers`, `servers_file` and `dns.srv`, if these are given too, come in addition.",
    )
    health_check: Annotated[
        HealthCheck | None,
        Shorthand(
            "`off`, `tcp`, `grpc`, a path for HTTP, or a mapping",
            expand_health_check,
            ({"enum": ["off", "tcp", "grpc"]}, {"type": "string", "pattern": "^/"}),
        ),
    ] = setting(HealthCheck(), "How lbproxy finds out whether a server works. Default: a TCP connection every 2 s.")
    protocol: Literal["h1", "h2", "auto"] = setting(
        "h1",
        "What servers are spoken to in. `h1`: HTTP/1.1. `h2`: HTTP/2, with `tls` agreed on by ALPN, else without "
        "asking (prior knowledge); requests share connections. `auto`, with `tls`: what ALPN says. TCP mode passes on "
        "what comes.",
    )
    max_inflight: Annotated[int | None, COUNT.or_off()] = setting(
        "off", "Requests (TCP: connections) at once per server; more wait in the queue."
    )
    queue: Queue = setting(Queue(), "Where requests wait while every server is full.")
    timeouts: PoolTimeouts = setting(
        PoolTimeouts(),
        "Time-outs towards servers. TCP mode uses `connect`, `tls_handshake`, `write`, `tunnel` and `half_closed`.",
    )
    retry: Annotated[Retry, Shorthand("`off` or a mapping", off_is_no_retry, OR_OFF.schemas)] = setting(
        Retry(), "When a failed request is sent again, to another server if there is one. `off`: never."
    )
    circuit_breaker: Annotated[CircuitBreaker | None, OR_OFF] = setting(
        CircuitBreaker(), "When a server whose answers fail is left alone for a while."
    )
    fail_open: Annotated[float | None, SHARE.or_off()] = setting(
        0,
        "Share of usable servers at or below which the verdict of checks is not believed and every server that was up "
        "and still accepts connections is used. 0: only when none is left. `off`: never, the answer is 503 at once.",
    )
    slow_start: Annotated[float, SECONDS_OR_ZERO] = setting(
        "0s", "Time over which a server that came back or joined gets its full weight and limit. 0: at once."
    )
    keep_alive: Annotated[KeepAlive | None, OR_OFF] = setting(
        KeepAlive(), "Idle connections to servers that are kept for later requests. `off`: one request a connection."
    )
    limits: PoolLimits = setting(PoolLimits(), "Bounds on what servers send.")
    lenient: Annotated[bool, FLAG] = setting(
        False,
        "Read answers that are not quite HTTP: lines that end in a bare LF, folded fields, white space before a colon, "
        "control characters in values, a length beside `chunked`, odd chunk extensions. What the client gets is strict "
        "all the same. Not where strangers can put text into a field of the servers' answers.",
    )
    headers: HeaderRules | None = setting(None, "Header changes for every request to this pool.")
    tls: Annotated[PoolTls | None, TRUE_OR_TLS] = setting(
        None, "TLS to servers. `true`: with the defaults. `off`: plain text."
    )
    proxy_protocol: Annotated[Literal["off", "v1", "v2"], switch("off", "v1", "v2")] = setting(
        "off",
        "PROXY header sent first on every connection to a server, which must expect it. Checks send one too, without a "
        "client, unless they have a `port` of their own. In HTTP mode it needs `keep_alive: off`.",
    )
    sticky: Annotated[Sticky | None, OR_OFF] = setting(
        None, "Keep a client at the server that answered it first, by a cookie. HTTP only."
    )

    @model_validator(mode="before")
    @classmethod
    def _on_top_of_its_kind(cls, value: object) -> object:
        return with_kind(value)
