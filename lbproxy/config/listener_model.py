"""Models of a listener: where clients connect, what they may send, and which pool answers."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import model_validator

from lbproxy.address import Address
from lbproxy.config.http_rules import PROTOCOL, PROTOCOLS, Route
from lbproxy.config.notation import (
    ALPN,
    BIND,
    BYTES,
    FIELD_NAME,
    FILE,
    METHOD,
    MODE_BITS,
    NAME,
    OR_OFF,
    POOL_NAME,
    RATE,
    SECONDS,
    TEXT_SCHEMA,
    Notation,
    Section,
    Shorthand,
    integer,
    one_is_list,
    parse_method,
    setting,
    switch,
)
from lbproxy.config.units import Rate, parse_text, shown


class ListenerTimeouts(Section):
    tls_handshake: Annotated[float, SECONDS] = setting(
        "5s", "Longest TLS handshake with a client; then the connection is closed."
    )
    request_head: Annotated[float, SECONDS] = setting(
        "10s", "Longest time from the first byte of a request to the end of its head; then 408."
    )
    request_body: Annotated[float, SECONDS] = setting(
        "30s", "Longest pause between two reads of a request body; then 408."
    )
    keep_alive: Annotated[float, SECONDS] = setting("75s", "Longest wait for the next request on a connection.")
    write: Annotated[float, SECONDS] = setting(
        "30s", "Longest time without progress while a response is sent to the client."
    )


class Http2Limits(Section):
    """What one connection of a client that speaks HTTP/2 may do."""

    streams: Annotated[int, integer(1, 10_000)] = setting(
        100, "Requests at once on one connection; the client is told, and one more is refused (it may repeat it)."
    )
    resets: Annotated[Rate, RATE] = setting(
        "100 in 10s",
        "Requests that the client gives up, or has lbproxy end for a mistake, before their answer; beyond that the "
        "connection ends.",
    )
    control_frames: Annotated[Rate, RATE] = setting(
        "1000 in 10s",
        "Frames that ask for nothing (PING, SETTINGS, PRIORITY, DATA without data, small WINDOW_UPDATEs); beyond that "
        "the connection ends.",
    )
    max_age: Annotated[float | None, SECONDS.or_off()] = setting(
        "off",
        "Age at which a connection takes no more requests and its client is told to make another one; up to a tenth "
        "less, at random. With several lbproxies behind one name, clients spread again.",
    )


class ListenerLimits(Section):
    head_bytes: Annotated[int, BYTES] = setting(
        "32KiB", "Longest head of a request; a longer one is 431 (414 where the request line alone is over its limit)."
    )
    request_line_bytes: Annotated[int, BYTES] = setting(
        "8KiB",
        "Longest request line (method, target and version); a longer one is 414. Raise it for large queries, such as "
        "base64 in a GET, and `head_bytes` with it. Servers have limits of their own (gunicorn: `limit_request_line`).",
    )
    headers: Annotated[int, integer(1, 10_000)] = setting(100, "Most header fields of a request; more are 431.")
    body_bytes: Annotated[int | None, BYTES.or_off()] = setting(
        "off", "Longest body of a request; a longer one is 413."
    )
    connections_per_ip: Annotated[int | None, integer(1, 1_000_000).or_off()] = setting(
        "off",
        "Connections at once from one client address (IPv6: one /64); more are closed. Unix sockets do not count.",
    )
    trailer_bytes: Annotated[int, BYTES] = setting(
        "8KiB", "Longest trailer section of a chunked request; a longer one is 431."
    )
    chunk_overhead: Annotated[int, BYTES] = setting(
        "16KiB",
        "Most bytes of chunk extensions, and of zeros and white space around chunk sizes, in a chunked body, with an "
        "eighth of its data on top; more are 400. The sizes themselves do not count, however small the chunks are.",
    )
    min_rate: Annotated[int | None, BYTES.or_off()] = setting(
        "off",
        "Slowest upload, in bytes of the body a second, on average since its beginning and not judged in the first 10 "
        "seconds; a slower one is 408. Time in which lbproxy itself does not read, or in which the client waits for "
        "`100 Continue`, does not count.",
    )
    handshakes: Annotated[int, integer(1, 1_000_000)] = setting(
        1000,
        "TLS handshakes in progress at once; connections beyond that wait for their turn, as part of "
        "`timeouts.tls_handshake`.",
    )
    h2: Http2Limits = setting(Http2Limits(), "Bounds on connections with HTTP/2.")


def parse_tls_version(value: object) -> str:
    """`1.2` is a number unless it has quotes; both are meant."""
    text = parse_text(value)
    if text not in ("1.2", "1.3"):
        raise ValueError(f"expected 1.2 or 1.3, got {shown(value)}")
    return text


TLS_VERSION: Final = Notation("`1.2` or `1.3`", parse_tls_version, {"enum": ["1.2", "1.3", 1.2, 1.3]})


def parse_served_method(value: object) -> str:
    """A method that a listener may be limited to."""
    method = parse_method(value)
    if method in ("CONNECT", "TRACE"):
        raise ValueError(f"{method} is never served")
    return method


SERVED_METHOD: Final = Notation("method", parse_served_method, METHOD.schema)


class CertificateFiles(Section):
    cert: Annotated[str, FILE] = setting(..., "File of the certificate chain, PEM, the server's own first.")
    key: Annotated[str, FILE] = setting(..., "File of its private key, PEM, without a passphrase.")


class ListenerTls(Section):
    cert: Annotated[str | None, FILE.or_unset()] = setting(
        None,
        "File of the certificate chain, PEM, the server's own first. Relative paths start at the config file. It is "
        "read again when they change.",
    )
    key: Annotated[str | None, FILE.or_unset()] = setting(None, "File of its private key, PEM, without a passphrase.")
    certs: tuple[CertificateFiles, ...] = setting(
        (),
        "More certificates. The name that the client asks for (SNI) chooses: the one that has it, exactly or by a "
        "wildcard for one label; else the first of all.",
    )
    client_ca: Annotated[str | None, FILE.or_unset()] = setting(
        None, "File of the CA certificates that sign those of clients. Needed for `client_verify`."
    )
    client_verify: Annotated[Literal["off", "optional", "required"], switch("off", "optional", "required")] = setting(
        "off",
        "`required`: only clients with a certificate of `client_ca` are served. `optional`: those without are served "
        "too, those with another are not. Servers see `X-Client-Cert-Verify`, `-Subject` and `-Fingerprint`.",
    )
    min_version: Annotated[str, TLS_VERSION] = setting("1.2", "Oldest version of TLS that is accepted.")
    alpn: tuple[Annotated[str, ALPN], ...] = setting(
        (),
        "Protocols offered to clients by ALPN, first choice first. In TCP mode say what the servers speak. Empty: in "
        "HTTP mode those of `protocols`, HTTP/2 first; in TCP mode none.",
    )


class Listener(Section):
    """Where clients connect."""

    name: Annotated[str, Notation("name", lambda v: v if v == "" else NAME.parse(v), TEXT_SCHEMA)] = setting(
        "", "Name in metrics and logs; the first bind address if not set."
    )
    bind: Annotated[
        tuple[Annotated[Address, BIND], ...], Shorthand("address, or a list", one_is_list, (BIND.schema,))
    ] = setting(
        ...,
        "Where to listen: `host:port`, `[v6]:port`, `:port` (every IPv4 address), `unix:PATH`, `unix:@abstract`, or a "
        "list of these. Port 0: the kernel chooses.",
    )
    mode: Literal["http", "tcp"] = setting(
        "http", "`http`: requests are balanced. `tcp`: connections are balanced, bytes untouched."
    )
    pool: Annotated[str | None, POOL_NAME.or_unset()] = setting(
        None, "Pool that answers everything. A listener has either this or `routes`."
    )
    routes: tuple[Route, ...] = setting(
        (), "Rules tried in order; the first that matches decides. No match: 404. In TCP mode use `pool`."
    )
    timeouts: ListenerTimeouts = setting(ListenerTimeouts(), "Time-outs towards clients.")
    limits: ListenerLimits = setting(ListenerLimits(), "Bounds on what clients send.")
    upgrade: Annotated[tuple[Annotated[str, PROTOCOL], ...], PROTOCOLS] = setting(
        ("websocket",), "Protocols that a request may switch to (`Upgrade`), for routes that do not say it themselves."
    )
    path_rules: Literal["normalise", "strict", "raw"] = setting(
        "normalise",
        "How paths are read where a route matches by path or rewrites it. `normalise`: runs of `/` become one, `%XX` "
        "of letters, digits and `-._~` are decoded, and the server gets what the rule saw; dot segments, backslashes "
        "and broken or disguised encodings are refused with 400. `strict`: every request whose path is not in that "
        "form is refused. `raw`: paths are compared and sent just as they come. **Danger**: with `raw` a rule for "
        "`/admin` does not see `//admin`, `/./admin` or `/%61dmin`, which most servers serve as `/admin`, and `..` "
        "leaves the `path_prefix` of a rewrite. Use it only where the servers themselves decide who may do what.",
    )
    encoded_slashes: Literal["refuse", "pass"] = setting(
        "refuse",
        "`%2F` and `%5C` in a path that a route looks at: refused with 400, or passed on as they are. Some servers "
        "take them for slashes; so if the path would belong to another route with slashes, or has dot segments, it is "
        "refused all the same.",
    )
    protocols: Annotated[
        tuple[Literal["h1", "h2"], ...],
        Shorthand("list of `h1`, `h2`, or one", one_is_list, ({"enum": ["h1", "h2"]},)),
    ] = setting(
        ("h1", "h2"),
        "Versions of HTTP that are served in HTTP mode: `h1` is 1.1 and 1.0, `h2` is 2. With TLS the client chooses "
        "(ALPN); without, one that speaks HTTP/2 says so with its first bytes (prior knowledge).",
    )
    methods: Annotated[
        tuple[Annotated[str, SERVED_METHOD], ...], Shorthand("list of methods, or one", one_is_list, (METHOD.schema,))
    ] = setting(
        (),
        "Methods that are served, upper case; others are refused: 405 if they are registered ones, else 501. GET "
        "stands for HEAD too. Empty: any method, besides CONNECT and TRACE.",
    )
    half_close: Literal["abort", "answer"] = setting(
        "abort",
        "What the end of a client's sending means after a complete request. `abort`: the client has left, its request "
        "is cancelled. `answer`: it is still answered, with all that were pipelined. TCP mode always passes it on.",
    )
    underscore_headers: Literal["drop", "pass", "reject"] = setting(
        "drop",
        "Request headers with `_` in their name, which many servers cannot tell from `-`: removed, passed on, or the "
        "request is refused with 400.",
    )
    mode_bits: Annotated[int | None, MODE_BITS.or_unset()] = setting(
        "0660", "Permissions of the file of a unix socket, octal and in quotes."
    )
    tls: Annotated[ListenerTls | None, OR_OFF] = setting(None, "TLS towards clients. `off`: plain text.")
    proxy_protocol: Annotated[Literal["off", "accept"], switch("off", "accept")] = setting(
        "off",
        "`accept`: every connection begins with a PROXY header (v1 or v2) that names the client. Only "
        "`trusted_proxies` may connect, and peers on a unix socket. `off`: no header is expected.",
    )
    deadline_header: Annotated[str | None, FIELD_NAME.or_off()] = setting(
        "X-Request-Timeout",
        "Request header by which one of the `trusted_proxies` says how long it waits: `2.5` (seconds), `800ms`, `2s`, "
        "or as in gRPC `5S`, `100m` (milliseconds). The request ends at that time, or at `timeouts.total` of the pool "
        "if that is sooner, and the server is told what is left. `grpc-timeout` is read besides. From everybody else "
        "both are passed on as they are. `off`: from everybody.",
    )

    @model_validator(mode="after")
    def _name_from_bind(self) -> Listener:
        if not self.name and self.bind:
            object.__setattr__(self, "name", str(self.bind[0]))
        return self

    def effective_routes(self) -> tuple[Route, ...]:
        """The routes; `pool: x` is one route without a match."""
        return (Route(pool=self.pool),) if self.pool is not None else self.routes
