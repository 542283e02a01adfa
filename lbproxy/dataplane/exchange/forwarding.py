"""Fields about the client: what is believed of a trusted peer, and what lbproxy adds."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from lbproxy.protocol.message import Field, Fields, join_fields

UNIX: Final = "unix"
_HTTP_PORT: Final = b"X-Forwarded-Port: 80\r\n"
_HTTPS_PORT: Final = b"X-Forwarded-Port: 443\r\n"
"""What stands for the address of a client on a unix socket, in logs and for strategies."""

_request_id = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch
# An element of X-Forwarded-For: Azure and others append the port, and IPv6 then needs brackets.
_node = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[^\]]*)?)\]|([0-9.]+)|([0-9A-Fa-f:.]+(?:%.*)?))(?::[0-9]{1,5})?").fullmatch
_host_port = re.compile(r":([0-9]{1,5})\Z").search
_ADDED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id"))
Forwarding = Mapping[bytes, list[bytes]]


def node_name(client_ip: str) -> bytes:
    """A client's address as a forwarding field has it; `unknown` (RFC 7239 section 6.2) if it has none.

    A zone is left out: it names an interface of this host, and means nothing to another.
    """
    return b"unknown" if client_ip == UNIX else client_ip.partition("%")[0].encode()


def connection_lines(client_ip: str, scheme: bytes = b"http") -> bytes:
    """The lines that are the same for every request of an untrusted connection."""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (node_name(client_ip), scheme)


def port_line(published_port: int, scheme: bytes) -> bytes:
    """X-Forwarded-Port where the request does not say it. published_port: from a PROXY header, 0 if it is not known."""
    if not published_port:
        return _HTTPS_PORT if scheme == b"https" else _HTTP_PORT
    return b"X-Forwarded-Port: %d\r\n" % published_port


def published_lines(host: str, known: Forwarding, skip: Collection[bytes], local_host: str) -> tuple[bytes, bool]:
    """X-Forwarded-Host and -Port: under which name and port the client sees the service, and whether `port_line` is
    still missing.

    The port is that of the Host field: where a port is published elsewhere than it is bound, only the client knows it.
    A Host without one means the port of the scheme. known: what a trusted peer said, which stays (request_lines).
    local_host: what stands for Host where an HTTP/1.0 client sent none.
    """
    lines = b""
    if host and b"x-forwarded-host" not in skip and b"x-forwarded-host" not in known:
        lines = b"X-Forwarded-Host: %b\r\n" % host.encode("latin-1")
    if b"x-forwarded-port" in skip or b"x-forwarded-port" in known:
        return lines, False
    port = _host_port(_last(known, b"x-forwarded-host") or host or local_host)
    if port is not None:
        return lines + b"X-Forwarded-Port: %b\r\n" % port[1].encode(), False
    scheme = _last(known, b"x-forwarded-proto").lower()
    return (lines + port_line(0, scheme.encode("latin-1")), False) if scheme else (lines, True)


_MAX_HOSTS: Final = 1024
_MAX_HOST: Final = 256


class _Published:
    """What is published by Host, where nobody has said anything else; and of the last one, which most name again."""

    __slots__ = ("_known", "_last", "_lines")

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, bool]] = {}
        self._last: str | None = None
        self._lines = b"", False

    def find(self, host: str) -> tuple[bytes, bool]:
        if host is not self._last:
            known = self._known.get(host)
            if known is None:
                known = published_lines(host, {}, (), "")
                if len(host) > _MAX_HOST:
                    return known
                if len(self._known) >= _MAX_HOSTS:
                    self._known.clear()
                self._known[host] = known
            self._last, self._lines = host, known
        return self._lines


_published: Final = _Published()


def usual_lines(host: str) -> tuple[bytes, bool]:
    """The same for a Host where nobody has said anything else; known once it was asked for."""
    return _published.find(host)


def _last(known: Forwarding, name: bytes) -> str:
    """What the nearest peer says, as the one that is trusted: the last of a list."""
    values = known.get(name, ())
    return values[-1].rpartition(b",")[2].strip(b" \t").decode("latin-1") if values else ""


def request_lines(
    known: Forwarding,
    peer_ip: str,
    host_line: bytes,
    skip: Collection[bytes],
    scheme: bytes = b"http",
    cert_fields: Sequence[Field] = (),
) -> bytes:
    """The lines for a request of a trusted peer (`known` is what it said), or where edits replace some (`skip`).

    host_line: from `published_lines`, with `port_line` if that is missing. cert_fields: what TLS knows of the peer's
    certificate; a peer is never believed about that.
    """
    chain = [*known.get(b"x-forwarded-for", ()), node_name(peer_ip)]
    fields: Fields = [(b"X-Forwarded-For", b", ".join(chain))]
    fields += [(b"X-Forwarded-Proto", value) for value in known.get(b"x-forwarded-proto", [scheme])]
    for name, values in known.items():
        if name not in _ADDED:
            spelled = _SPELLINGS.get(name) or name.title()
            fields += [(spelled, value) for value in values]
    fields += cert_fields
    return host_line + join_fields([field for field in fields if field[0].lower() not in skip])


_SPELLINGS: Final = {b"x-real-ip": b"X-Real-IP", b"true-client-ip": b"True-Client-IP", b"x-client-ip": b"X-Client-IP"}


def address_of(element: str) -> str:
    """The address in an element of X-Forwarded-For, "" if it holds none (`unknown`, a name, an obfuscated node).

    With or without a port, brackets or a zone; IPv4 that is written as IPv6 (`::ffff:203.0.113.9`) is IPv4.
    """
    found = _node(element)
    if found is None:
        return ""
    text = found[1] or found[2] or found[3]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def client_address(known: Forwarding, peer_ip: str, is_trusted: Callable[[str], bool]) -> str:
    """The client behind trusted peers: X-Forwarded-For from the right, past every trusted address.

    Empty elements are skipped. What is no address ends the search, since whatever stands before it was written by
    somebody who is not known: the client is then the last address that was.
    """
    client = peer_ip
    chain = [part.strip(b" \t") for value in known.get(b"x-forwarded-for", ()) for part in value.split(b",")]
    for part in reversed(chain):
        if not part:
            continue
        address = address_of(part.decode("latin-1"))
        if not address:
            break
        client = address
        if not is_trusted(client):
            break
    return client


def kept_identity(known: Forwarding) -> tuple[str, bytes] | None:
    """The request id of a trusted peer and its line, if it sent one that can be kept."""
    request_id = kept_request_id(known)
    return (request_id, b"X-Request-ID: %b\r\n" % request_id.encode()) if request_id else None


def kept_request_id(known: Forwarding) -> str:
    """The one X-Request-ID of a trusted peer, or "" if it sent none that can be kept."""
    ids = known.get(b"x-request-id", [])
    return ids[0].decode() if len(ids) == 1 and _request_id(ids[0]) else ""
