"""Models of a listener: where clients connect, what they may send, and which pool answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from lbproxy.address import Address
from lbproxy.config.http_rules import Route
from lbproxy.config.notation import (
    BIND,
    BYTES,
    FIELD_NAME,
    MODE_BITS,
    NAME,
    OR_OFF,
    POOL_NAME,
    SECONDS,
    TEXT,
    TEXT_SCHEMA,
    Notation,
    Section,
    Shorthand,
    integer,
    one_is_list,
    setting,
)


class ListenerTimeouts(Section):
    tls_handshake: Annotated[float, SECONDS] = setting("5s", "Longest TLS handshake with a client.")
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


class ListenerLimits(Section):
    head_bytes: Annotated[int, BYTES] = setting(
        "32KiB", "Longest head of a request; a longer one is 431 (414 where the request line alone is over 8 KiB)."
    )
    headers: Annotated[int, integer(1, 10_000)] = setting(100, "Most header fields of a request; more are 431.")
    body_bytes: Annotated[int | None, BYTES.or_off()] = setting(
        "off", "Longest body of a request; a longer one is 413."
    )
    connections_per_ip: Annotated[int | None, integer(1, 1_000_000).or_off()] = setting(
        "off", "Connections at once from one client address; more are closed."
    )
    trailer_bytes: Annotated[int, BYTES] = setting(
        "8KiB", "Longest trailer section of a chunked request; a longer one is 431."
    )
    chunk_overhead: Annotated[int, BYTES] = setting(
        "16KiB", "Most bytes of a chunked body that are chunk sizes and extensions instead of data; more are 400."
    )
    min_rate: Annotated[int | None, BYTES.or_off()] = setting("off", "Slowest upload, in bytes a second.")
    handshakes: Annotated[int, integer(1, 1_000_000)] = setting(1000, "TLS handshakes at once.")


class CertificateFiles(Section):
    cert: Annotated[str, TEXT] = setting(..., "File of the certificate chain.")
    key: Annotated[str, TEXT] = setting(..., "File of the private key.")


class ListenerTls(Section):
    cert: Annotated[str | None, TEXT.or_unset()] = setting(None, "File of the certificate chain.")
    key: Annotated[str | None, TEXT.or_unset()] = setting(None, "File of the private key.")
    certs: tuple[CertificateFiles, ...] = setting((), "Further certificates; SNI chooses.")
    client_ca: Annotated[str | None, TEXT.or_unset()] = setting(None, "File of CA certificates for clients.")
    client_verify: Literal["off", "optional", "required"] = setting("off", "Whether clients show a certificate.")
    min_version: Literal["1.2", "1.3"] = setting("1.2", "Oldest TLS version.")
    alpn: tuple[Annotated[str, TEXT], ...] = setting(("http/1.1",), "Protocols offered by ALPN.")


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
    half_close: Literal["abort", "answer"] = setting(
        "abort",
        "What the end of a client's sending means after a complete request. `abort`: the client has left, its request "
        "is cancelled. `answer`: it is still answered. TCP mode always passes it on.",
    )
    underscore_headers: Literal["drop", "pass", "reject"] = setting(
        "drop",
        "Request headers with `_` in their name, which many servers cannot tell from `-`: removed, passed on, or the "
        "request is refused with 400.",
    )
    mode_bits: Annotated[int | None, MODE_BITS.or_unset()] = setting(
        "0660", "Permissions of the file of a unix socket, octal and in quotes."
    )
    tls: Annotated[ListenerTls | None, OR_OFF] = setting(None, "TLS towards clients.")
    proxy_protocol: Literal["off", "accept"] = setting("off", "PROXY protocol header from `trusted_proxies`.")
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
