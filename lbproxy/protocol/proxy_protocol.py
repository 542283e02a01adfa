"""The PROXY protocol, versions 1 and 2: who connected to the balancer in front of us, said before the first byte.

Source: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt; sections are quoted from there. A receiver never
guesses whether there is a header (section 2), so `parse` refuses everything that does not begin like one. It never
needs a byte behind the header: as long as it returns None, all that it was given belongs to the header.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LIMIT_BYTES: Final = 107  # with CRLF, section 2.1
V2_LIMIT_BYTES: Final = 4096  # of what follows the 16 fixed bytes; real senders use well below 1 KiB
LIMIT_BYTES: Final = 16 + V2_LIMIT_BYTES

Endpoint = tuple[str, int]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_V1_START: Final = b"PROXY "
_v1_line = re.compile(rb"(TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})").fullmatch
_v1_unknown = re.compile(rb"UNKNOWN(?: .*)?", re.DOTALL).fullmatch
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPEC: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
_ADDRESS_BYTES: Final = {_TCP4: 12, _TCP6: 36, _UNIX: 216}
_TLV_CRC32C: Final = 0x03


class ProxyHeaderError(Exception):
    """Bytes that are no PROXY header; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says of a connection: the client's address and the one that it connected to.

    Without a source the connection's own addresses count (LOCAL, UNKNOWN, UNSPEC). is_unix: the client used a unix
    socket and has no address; its paths are not kept.
    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
    is_unix: bool = False

    @property
    def published_port(self) -> int:
        """The port that the client connected to, 0 if the header does not say it."""
        known = self.source is not None and self.destination is not None
        return self.destination[1] if known and self.destination is not None else 0

    def seen_from(self, ip: str, port: int) -> tuple[str, int]:
        """The client's address, "" for a unix client, and the port that it connected to.

        ip, port: the same of the connection that brought the header.
        """
        if self.is_unix:
            return "", port
        if self.source is None or self.destination is None:
            return ip, port
        return self.source[0], self.destination[1]


OWN_ADDRESSES: Final = ProxyHeader()


def parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header at the start of `data` and its length in bytes; None if `data` is the beginning of one.

    Raises ProxyHeaderError as soon as it is certain that no header can come of it.
    """
    if data[:12] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == _V1_START[: len(data)]:
        return _parse_v1(data)
    raise ProxyHeaderError("the connection does not begin with a PROXY header")


# --- version 1: a line of text (section 2.1) --------------------------------------------------------------------------


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r", 0, V1_LIMIT_BYTES - 1)
    feed = data.find(b"\n", 0, V1_LIMIT_BYTES)
    if feed >= 0 and feed != end + 1:
        raise ProxyHeaderError("the line does not end in CRLF")
    if end < 0:
        if len(data) >= V1_LIMIT_BYTES - 1:
            raise ProxyHeaderError(f"the line is longer than {V1_LIMIT_BYTES} bytes")
        return None
    if len(data) == end + 1:
        return None
    if feed < 0:
        raise ProxyHeaderError("the line does not end in CRLF")
    return _v1_header(data[len(_V1_START) : end]), feed + 1


def _v1_header(text: bytes) -> ProxyHeader:
    if _v1_unknown(text):
        return OWN_ADDRESSES  # whatever follows on the line is to be ignored
    found = _v1_line(text)
    if found is None:
        raise ProxyHeaderError("the line is not TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    family, source, destination, source_port, destination_port = (part.decode("ascii") for part in found.groups())
    return ProxyHeader(
        (_v1_address(family, source), _v1_port(source_port)),
        (_v1_address(family, destination), _v1_port(destination_port)),
    )


def _v1_address(family: str, text: str) -> str:
    try:
        return _plain(ipaddress.IPv4Address(text) if family == "TCP4" else ipaddress.IPv6Address(text))
    except ValueError:
        raise ProxyHeaderError(f"{text} is not an address of {family}") from None


def _v1_port(text: str) -> int:
    port = int(text)
    if port > 65535 or str(port) != text:
        raise ProxyHeaderError(f"{text} is not a port")
    return port


# --- version 2: binary (section 2.2) ----------------------------------------------------------------------------------


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"version and command are 0x{data[12]:02x}, expected 0x20 or 0x21")
    if len(data) < 16:
        return None
    length = int.from_bytes(data[14:16])
    if length > V2_LIMIT_BYTES:
        raise ProxyHeaderError(f"it announces {length} bytes, more than {V2_LIMIT_BYTES}")
    if data[12] == _LOCAL or data[13] == _UNSPEC:
        # The addresses, if there are any, and the family with LOCAL are to be ignored.
        return (OWN_ADDRESSES, 16 + length) if len(data) >= 16 + length else None
    address_bytes = _ADDRESS_BYTES.get(data[13])
    if address_bytes is None:
        raise ProxyHeaderError(f"family and protocol are 0x{data[13]:02x}, not one of a stream")
    if length < address_bytes:
        raise ProxyHeaderError(f"it announces {length} bytes, its addresses need {address_bytes}")
    if len(data) < 16 + length:
        return None
    block = data[: 16 + length]
    _check_tlvs(block, 16 + address_bytes)
    return _v2_header(block), 16 + length


def _v2_header(block: bytes) -> ProxyHeader:
    if block[13] == _UNIX:
        return ProxyHeader(is_unix=True)
    size = 4 if block[13] == _TCP4 else 16
    source, destination = block[16 : 16 + size], block[16 + size : 16 + 2 * size]
    ports = block[16 + 2 * size : 20 + 2 * size]
    return ProxyHeader(
        (_plain(ipaddress.ip_address(source)), int.from_bytes(ports[:2])),
        (_plain(ipaddress.ip_address(destination)), int.from_bytes(ports[2:])),
    )


def _plain(address: IpAddress) -> str:
    """The usual form; an IPv4 address that was mapped into IPv6 is one again, so that lists of networks match it."""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _check_tlvs(block: bytes, at: int) -> None:
    """Extensions fill the rest of the block exactly; their checksum, if one is sent, is right (section 2.2.3)."""
    while at < len(block):
        if at + 3 > len(block):
            raise ProxyHeaderError("an extension is cut off")
        kind, size = block[at], int.from_bytes(block[at + 1 : at + 3])
        value = block[at + 3 : at + 3 + size]
        if len(value) != size:
            raise ProxyHeaderError("an extension is longer than the header")
        if kind == _TLV_CRC32C:
            zeroed = block[: at + 3] + bytes(size) + block[at + 3 + size :]
            if size != 4 or crc32c(zeroed) != int.from_bytes(value):
                raise ProxyHeaderError("the checksum is wrong")
        at += 3 + size


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum (RFC 3720 appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# --- sending ----------------------------------------------------------------------------------------------------------


def build(version: str, source: Endpoint | None, destination: Endpoint | None, *, is_check: bool = False) -> bytes:
    """The header to send, version `v1` or `v2`. Addresses are literal; IPv6 ones may have a scope, which is left out.

    Without both addresses, or with two families, it is UNKNOWN (UNSPEC). is_check: the connection is lbproxy's own,
    which only v2 can say (LOCAL); in v1 that is UNKNOWN too.
    """
    addresses = None if is_check or source is None or destination is None else _same_family(source[0], destination[0])
    if version == "v1":
        if addresses is None or source is None or destination is None:
            return b"PROXY UNKNOWN\r\n"
        client, local = addresses
        return f"PROXY TCP{client.version} {client} {local} {source[1]} {destination[1]}\r\n".encode("ascii")
    if addresses is None or source is None or destination is None:
        return SIGNATURE + bytes((_LOCAL if is_check else _PROXY, _UNSPEC, 0, 0))
    client, local = addresses
    block = client.packed + local.packed + source[1].to_bytes(2) + destination[1].to_bytes(2)
    family = _TCP4 if client.version == 4 else _TCP6
    return SIGNATURE + bytes((_PROXY, family)) + len(block).to_bytes(2) + block


def _same_family(source: str, destination: str) -> tuple[IpAddress, IpAddress] | None:
    try:
        client, local = (ipaddress.ip_address(text.partition("%")[0]) for text in (source, destination))
    except ValueError:
        return None
    return (client, local) if client.version == local.version else None
