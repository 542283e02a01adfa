"""PROXY headers: what is built is read again, every beginning of one waits, and everything else is refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.proxy_protocol import (
    LIMIT_BYTES,
    OWN_ADDRESSES,
    SIGNATURE,
    Endpoint,
    ProxyHeader,
    ProxyHeaderError,
    build,
    crc32c,
    parse,
)

V4 = ProxyHeader(("192.0.2.7", 40000), ("198.51.100.1", 443))
V6 = ProxyHeader(("2001:db8::7", 40000), ("2001:db8::1", 443))
LINE_V4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
LINE_V6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n"
BLOCK_V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (40000).to_bytes(2) + (443).to_bytes(2)
BLOCK_V6 = (
    ipaddress.ip_address("2001:db8::7").packed
    + ipaddress.ip_address("2001:db8::1").packed
    + (40000).to_bytes(2)
    + (443).to_bytes(2)
)
BLOCK_UNIX = b"/run/client.sock".ljust(108, b"\0") + b"/run/front.sock".ljust(108, b"\0")


def v2(family: int, block: bytes = b"", *, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(block) if length is None else length).to_bytes(2) + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2) + value


def with_checksum(header: bytes) -> bytes:
    """The header, which ends in an empty checksum, with the right one."""
    assert header[-4:] == bytes(4)
    return header[:-4] + crc32c(header).to_bytes(4)


GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "v1 IPv4": (LINE_V4, V4),
    "v1 IPv6": (LINE_V6, V6),
    "v1 IPv6 in capitals and in full": (
        b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 2001:DB8::1 40000 443\r\n",
        V6,
    ),
    "v1 IPv4 in IPv6": (
        b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c633:6401 40000 443\r\n",
        V4,
    ),
    "v1 lowest and highest port": (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        ProxyHeader(("0.0.0.0", 0), ("255.255.255.255", 65535)),
    ),
    "v1 longest line of TCP6": (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        ProxyHeader(("ffff:" * 7 + "ffff", 65535), ("ffff:" * 7 + "ffff", 65535)),
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", OWN_ADDRESSES),
    "v1 unknown with addresses": (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", OWN_ADDRESSES),
    "v1 longest unknown": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", OWN_ADDRESSES),
    "v2 IPv4": (v2(0x11, BLOCK_V4), V4),
    "v2 IPv6": (v2(0x21, BLOCK_V6), V6),
    "v2 IPv4 in IPv6": (
        v2(0x21, bytes(10) + b"\xff\xff" + BLOCK_V4[:4] + bytes(10) + b"\xff\xff" + BLOCK_V4[4:]),
        V4,
    ),
    "v2 unix": (v2(0x31, BLOCK_UNIX), ProxyHeader(is_unix=True)),
    "v2 unspecified": (v2(0x00), OWN_ADDRESSES),
    "v2 unspecified with a block": (v2(0x00, b"\x01\x02\x03"), OWN_ADDRESSES),
    "v2 local": (v2(0x00, command=0x20), OWN_ADDRESSES),
    "v2 local with addresses": (v2(0x11, BLOCK_V4, command=0x20), OWN_ADDRESSES),
    "v2 local of an odd family": (v2(0xFF, b"?", command=0x20), OWN_ADDRESSES),
    "v2 with extensions": (v2(0x11, BLOCK_V4 + tlv(0x02, b"example.com") + tlv(0xEA, b"") + tlv(0x04, b"\0\0")), V4),
    "v2 with a checksum": (with_checksum(v2(0x21, BLOCK_V6 + tlv(0x03, bytes(4)))), V6),
    "v2 of the longest block": (v2(0x11, BLOCK_V4 + tlv(0xE0, bytes(4096 - 15))), V4),
}

BAD: dict[str, bytes] = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01",
    "an empty line": b"\r\n\r\nGET",
    "lower case": b"proxy TCP4 192.0.2.7 198.51.100.1 40000 443\r\n",
    "a tab": b"PROXY\tTCP4 192.0.2.7 198.51.100.1 40000 443\r\n",
    "two blanks": b"PROXY  TCP4 192.0.2.7 198.51.100.1 40000 443\r\n",
    "two blanks inside": b"PROXY TCP4 192.0.2.7  198.51.100.1 40000 443\r\n",
    "a blank at the end": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443 \r\n",
    "one more word": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443 1\r\n",
    "one word less": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
    "no word": b"PROXY \r\n",
    "another family": b"PROXY TCP5 192.0.2.7 198.51.100.1 40000 443\r\n",
    "a family in lower case": b"PROXY tcp4 192.0.2.7 198.51.100.1 40000 443\r\n",
    "UDP": b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 443\r\n",
    "a longer unknown": b"PROXY UNKNOWNS\r\n",
    "LF alone": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\n",
    "LF alone after unknown": b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    "CR alone": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\rX",
    "two CR": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\r\n",
    "an IPv6 address of TCP4": b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 443\r\n",
    "an IPv4 address of TCP6": b"PROXY TCP6 192.0.2.7 198.51.100.1 40000 443\r\n",
    "leading zeros": b"PROXY TCP4 192.0.2.07 198.51.100.1 40000 443\r\n",
    "three parts": b"PROXY TCP4 192.0.2 198.51.100.1 40000 443\r\n",
    "a part over 255": b"PROXY TCP4 192.0.2.256 198.51.100.1 40000 443\r\n",
    "hexadecimal parts": b"PROXY TCP4 c0.0.2.7 198.51.100.1 40000 443\r\n",
    "a name": b"PROXY TCP4 localhost 198.51.100.1 40000 443\r\n",
    "a scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 443\r\n",
    "two gaps": b"PROXY TCP6 2001::db8::7 2001:db8::1 40000 443\r\n",
    "five digits in a group": b"PROXY TCP6 20010:db8::7 2001:db8::1 40000 443\r\n",
    "a port over 65535": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    "a port of six digits": b"PROXY TCP4 192.0.2.7 198.51.100.1 100000 443\r\n",
    "a port with a leading zero": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 0443\r\n",
    "a port of two zeros": b"PROXY TCP4 192.0.2.7 198.51.100.1 00 443\r\n",
    "a negative port": b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
    "a port with an underscore": b"PROXY TCP4 192.0.2.7 198.51.100.1 4_0 443\r\n",
    "digits that are not ASCII": "PROXY TCP4 192.0.2.7 198.51.100.1 \uff14\uff10 443\r\n".encode(),
    "NUL": b"PROXY TCP4 192.0.2.7\0 198.51.100.1 40000 443\r\n",
    "108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "107 bytes without an end": b"PROXY UNKNOWN " + b"x" * 93,
    "an endless line": b"PROXY " + b"x" * 5000,
    "version 1 in binary": SIGNATURE + b"\x11\x11\x00\x0c" + BLOCK_V4,
    "version 3": SIGNATURE + b"\x31\x11\x00\x0c" + BLOCK_V4,
    "another command": v2(0x11, BLOCK_V4, command=0x22),
    "a broken signature": b"\r\n\r\n\x00\r\nQUIT\r\x21\x11\x00\x0c" + BLOCK_V4,
    "datagrams over IPv4": v2(0x12, BLOCK_V4),
    "datagrams over IPv6": v2(0x22, BLOCK_V6),
    "datagrams over unix": v2(0x32, BLOCK_UNIX),
    "no protocol": v2(0x10, BLOCK_V4),
    "no family": v2(0x01, BLOCK_V4),
    "a fourth family": v2(0x41, BLOCK_V4),
    "too short for IPv4": v2(0x11, BLOCK_V4[:-1]),
    "too short for IPv6": v2(0x21, BLOCK_V4),
    "too short for unix": v2(0x31, BLOCK_UNIX[:-1]),
    "nothing for IPv4": v2(0x11),
    "too long": v2(0x11, length=4097),
    "as long as can be said": v2(0x11, length=65535),
    "local, too long": v2(0x00, command=0x20, length=65535),
    "half an extension": v2(0x11, BLOCK_V4 + b"\x02"),
    "an extension without its length": v2(0x11, BLOCK_V4 + b"\x02\x00"),
    "an extension that ends behind the header": v2(0x11, BLOCK_V4 + b"\x02\x00\x05abcd"),
    "a byte behind the extensions": v2(0x11, BLOCK_V4 + tlv(0x04, b"x") + b"\x04"),
    "a wrong checksum": v2(0x11, BLOCK_V4 + tlv(0x03, b"\x01\x02\x03\x04")),
    "a short checksum": v2(0x11, BLOCK_V4 + tlv(0x03, b"\x01\x02")),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_to_its_last_byte_and_no_further(name: str) -> None:
    raw, header = GOOD[name]
    assert len(raw) <= LIMIT_BYTES
    for rest in (b"", b"G", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", raw):
        assert parse(raw + rest) == (header, len(raw))


@pytest.mark.parametrize("name", GOOD)
def test_every_beginning_of_a_header_waits_for_more(name: str) -> None:
    raw, _ = GOOD[name]
    assert [size for size in range(len(raw)) if parse(raw[:size]) is not None] == []


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused(name: str) -> None:
    with pytest.raises(ProxyHeaderError) as raised:
        parse(BAD[name])
    assert str(raised.value)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_never_taken_for_one_in_pieces(name: str) -> None:
    """Byte by byte it is refused at some point, and not before what is bad about it is there."""
    raw = BAD[name]
    for size in range(len(raw) + 1):
        try:
            assert parse(raw[:size]) is None
        except ProxyHeaderError:
            break
    else:
        raise AssertionError("accepted")
    with pytest.raises(ProxyHeaderError):
        parse(raw[:size] + b"\r\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GE", "does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "CRLF"),
        (b"PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n", "1.2.3.400 is not an address of TCP4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n", "70000 is not a port"),
        (v2(0x12, BLOCK_V4), "0x12"),
        (v2(0x21, BLOCK_V4), "announces 12 bytes, its addresses need 36"),
    ],
)
def test_the_complaint_says_what_is_wrong(data: bytes, words: str) -> None:
    with pytest.raises(ProxyHeaderError, match=words):
        parse(data)


@given(st.binary(max_size=200))
def test_whatever_comes_is_waited_for_accepted_or_refused(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"):
        try:
            found = parse(start + data)
        except ProxyHeaderError:
            continue
        if found is not None:
            assert 15 <= found[1] <= len(start + data)


@given(st.binary(max_size=60))
def test_a_block_of_extensions_is_accepted_only_if_it_is_filled_exactly(data: bytes) -> None:
    def is_filled(rest: bytes) -> bool:
        if not rest:
            return True
        size = int.from_bytes(rest[1:3])
        return len(rest) >= 3 + size and is_filled(rest[3 + size :])

    data = data.replace(b"\x03", b"\x05")  # checksums have tests of their own
    try:
        found = parse(v2(0x11, BLOCK_V4 + data))
    except ProxyHeaderError:
        assert not is_filled(data)
    else:
        assert found == (V4, 28 + len(data))
        assert is_filled(data)


def _endpoints(addresses: st.SearchStrategy[object]) -> st.SearchStrategy[Endpoint]:
    return st.tuples(addresses.map(str), st.integers(0, 65535))


_PAIRS = st.one_of(
    st.tuples(_endpoints(st.ip_addresses(v=4)), _endpoints(st.ip_addresses(v=4))),
    st.tuples(_endpoints(st.ip_addresses(v=6)), _endpoints(st.ip_addresses(v=6))),
)


@given(st.sampled_from(["v1", "v2"]), _PAIRS, st.binary(max_size=20))
def test_what_is_built_is_read_again(version: str, pair: tuple[Endpoint, Endpoint], rest: bytes) -> None:
    raw = build(version, *pair)
    found = parse(raw + rest)
    assert found is not None
    header, size = found
    assert size == len(raw)
    assert header.source is not None and header.destination is not None
    for read, sent in zip((header.source, header.destination), pair, strict=True):
        address = ipaddress.ip_address(sent[0])
        assert read == (str(getattr(address, "ipv4_mapped", None) or address), sent[1])


@pytest.mark.parametrize(
    ("version", "source", "destination", "is_check", "expected"),
    [
        ("v1", *[V4.source, V4.destination], False, LINE_V4),
        ("v1", *[V6.source, V6.destination], False, LINE_V6),
        ("v1", ("fe80::7%eth0", 1), ("fe80::1%eth0", 2), False, b"PROXY TCP6 fe80::7 fe80::1 1 2\r\n"),
        ("v1", None, V4.destination, False, b"PROXY UNKNOWN\r\n"),
        ("v1", V4.source, V6.destination, False, b"PROXY UNKNOWN\r\n"),
        ("v1", V4.source, V4.destination, True, b"PROXY UNKNOWN\r\n"),
        ("v2", *[V4.source, V4.destination], False, v2(0x11, BLOCK_V4)),
        ("v2", *[V6.source, V6.destination], False, v2(0x21, BLOCK_V6)),
        ("v2", None, None, False, v2(0x00)),
        ("v2", ("unix", 0), V4.destination, False, v2(0x00)),
        ("v2", V4.source, V4.destination, True, v2(0x00, command=0x20)),
        ("v2", None, None, True, v2(0x00, command=0x20)),
    ],
)
def test_headers_are_built_to_the_byte(
    version: str, source: Endpoint | None, destination: Endpoint | None, is_check: bool, expected: bytes
) -> None:
    assert build(version, source, destination, is_check=is_check) == expected


def test_the_checksum_is_that_of_the_rfc() -> None:
    """RFC 3720 appendix B.4."""
    assert crc32c(bytes(32)).to_bytes(4, "little").hex(" ") == "aa 36 91 8a"
    assert crc32c(bytes(range(32))).to_bytes(4, "little").hex(" ") == "4e 79 dd 46"
