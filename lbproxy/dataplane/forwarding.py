"""Fields about the client: what is believed of a trusted peer, and what lbproxy adds."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from lbproxy.protocol.message import Field, Fields, join_fields

_request_id = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch
Forwarding = Mapping[bytes, list[bytes]]


def connection_lines(client_ip: str, port: int, scheme: bytes = b"http") -> bytes:
    """The lines that are the same for every request of an untrusted connection."""
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n"
    return lines % (client_ip.encode(), scheme, port)


def request_lines(
    known: Forwarding,
    peer_ip: str,
    port: int,
    host_line: bytes,
    skip: Collection[bytes],
    scheme: bytes = b"http",
    cert_fields: Sequence[Field] = (),
) -> bytes:
    """The lines for a request of a trusted peer (`known` is what it said), or where edits replace some (`skip`).

    cert_fields: what TLS knows of the peer's certificate; a peer is never believed about that.
    """
    chain = [*known.get(b"x-forwarded-for", ()), peer_ip.encode()]
    fields: Fields = [(b"X-Forwarded-For", b", ".join(chain))]
    for name, own in ((b"X-Forwarded-Proto", scheme), (b"X-Forwarded-Port", b"%d" % port)):
        fields += [(name, value) for value in known.get(name.lower(), [own])]
    for name in (b"X-Forwarded-Host", b"Forwarded", b"X-Real-IP"):
        fields += [(name, value) for value in known.get(name.lower(), ())]
    fields += cert_fields
    return host_line + join_fields([field for field in fields if field[0].lower() not in skip])


def client_address(known: Forwarding, peer_ip: str, is_trusted: Callable[[str], bool]) -> str:
    """The client behind trusted peers: X-Forwarded-For from the right, past every trusted address."""
    client = peer_ip
    chain = [part.strip(b" \t") for value in known.get(b"x-forwarded-for", ()) for part in value.split(b",")]
    for part in reversed(chain):
        try:
            client = str(ipaddress.ip_address(part.decode("latin-1").strip("[]")))
        except ValueError:
            break
        if not is_trusted(client):
            break
    return client


def kept_request_id(known: Forwarding) -> str:
    """The one X-Request-ID of a trusted peer, or "" if it sent none that can be kept."""
    ids = known.get(b"x-request-id", [])
    return ids[0].decode() if len(ids) == 1 and _request_id(ids[0]) else ""
