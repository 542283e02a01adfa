"""Heads and chunked bodies between the orderly and the absurd: a grammar with a taste for edges, then mutations.

Everything is a function of a `random.Random`: a seed repeats a run, and hypothesis can hand in its own and shrink.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

Weighted = Sequence[bytes]

METHODS: Weighted = (
    *([b"GET"] * 8),
    *([b"POST"] * 6),
    b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"OPTIONS",
    b"TRACE", b"CONNECT", b"PRI", b"BREW", b"LIST",
    b"purge", b"head", b"SETUP", b"SOURCE", b"A" * 33, b"get", b"Get", b"G@T", b"GE\x00T", b"M-SEARCH",
    b"PROPFIND", b"QUERY", b"",
)  # fmt: skip
TARGETS: Weighted = (
    *([b"/"] * 4),
    *([b"/predict"] * 4),
    b"/a?b=c", b"/?", b"//x//y", b"/%2e%2e/%00", b"/a;b=c,d", b"/a|b^c`{}", b'/"<>', b"/" + b"a" * 300, b"/a#b", b"*",
    b"*x", b"x", b"?q", b"a:80", b"http://h", b"http://h/", b"http://h:80/x?y", b"HTTP://h?x", b"https://h/x",
    b"http://",
    b"http:///x", b"http://u@h/", b"http://h:99999/", b"http://[::1]:8/x", b"http://h/x#f", b"http://h h/", b"ftp://h/",
    b"/\xc3\xa9", b"/\x7f", b"/\x00", b"/ x", b"/x\ty", b"\\x", b"",
)  # fmt: skip
VERSIONS: Weighted = (
    *([b"HTTP/1.1"] * 16),
    *([b"HTTP/1.0"] * 4),
    b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1", b"HTTP/1.10", b"HTTP/01.1", b"http/1.1", b"HTTP/1.1 ", b"",
    b"ICE/1.0",
)  # fmt: skip
STATUSES: Weighted = (
    *([b"200"] * 8),
    b"100", b"101", b"103", b"199", b"204", b"304", b"302", b"404", b"500", b"599", b"600", b"999", b"099", b"99",
    b"2000",
    b"20x", b"-20", b"+20", b"", b" 200", b"\xb2\xb2\xb2",
)  # fmt: skip
REASONS: Weighted = (*([b" OK"] * 4), b"", b" ", b" \xd6K", b" a\tb", b"  x ", b" \x1b[1m", b"\tOK", b" " + b"O" * 200)
LENGTHS: Weighted = (
    *([b"5"] * 6),
    *([b"0"] * 3),
    b"00005", b"+5", b"-5", b"-0", b"5,5", b"5, 6", b"5,", b" 5", b"0x5", b"5a", b"1e1", b"1_0", b"5.0", b'"5"',
    b"5 5", b"",
    b"\xb2", b"\xef\xbc\x95", b"9223372036854775807", b"9223372036854775808", b"18446744073709551621", b"9" * 40,
    b"0000000000000000000", b"00000000000000000000", b"5\x0b", b"\xa05", b"5;x", b"5\x00",
)  # fmt: skip
CODINGS: Weighted = (
    *([b"chunked"] * 6),
    b"Chunked", b"CHUNKED", b"chunked ", b"\tchunked\t", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip",
    b"chunked, chunked", b"identity, chunked", b"xchunked", b"chunkedx", b"chunke", b",chunked", b"chunked,",
    b'"chunked"',
    b"chunked;q=1", b"", b"\x0bchunked", b"chunked\x00", b"\xa0chunked", b"chun\tked", b"c", b"ch\xfcnked",
)  # fmt: skip
HOSTS: Weighted = (
    *([b"a"] * 6),
    b"a.example:8080", b"a.example", b"[::1]", b"[::1]:80", b"a:", b"A_b.c", b"%41", b"127.0.0.1", b"a, b", b"a b",
    b"a/b",
    b"u@a", b"a:80:80", b"a:99999", b"a:65536", b"a:+1", b"[::1", b"::1", b"", b"\xe9", b"a#b", b"a?b", b"a\\b", b"a;b",
)  # fmt: skip
CONNECTIONS: Weighted = (
    *([b"keep-alive"] * 4),
    *([b"close"] * 3),
    b"Keep-Alive", b"CLOSE", b"close, x", b"x-a", b"X-A, x-b ,,", b",", b"", b"upgrade", b"Upgrade, HTTP2-Settings",
    b"te",
    b"TE, close", b"host", b"content-length", b"transfer-encoding, close", b"expect", b"via",
    b"x-forwarded-for, cookie",
    b"close;x", b'"close"', b"clo se", b"keep-alive, close", b"close\x00", b"max-forwards", b"connection",
)  # fmt: skip
OTHER_VALUES: Weighted = (
    b"y", b"", b"y z", b"y\tz", b":y", b"\xe9\xff", b"y" * 200, b"\x7f", b"\x01", b"\x00", b"\x0b", b"\x85", b"\xa0",
    b"y\rz",
    b"y\nz", b'"', b",", b"=",
)  # fmt: skip
PLAIN_NAMES: Weighted = (
    b"X-A", b"X-B", b"x-a", b"Accept", b"Cookie", b"User-Agent", b"Referer", b"Authorization", b"X!#$%&'*+-.^`|~1",
    b"Host2",
)  # fmt: skip
MARKED_NAMES: Weighted = (
    b"X_A", b"Content_Length", b"Transfer_Encoding", b"X_Forwarded_For", b"X-Forwarded-For", b"x-forwarded-proto",
    b"X-Forwarded-Host", b"X-Forwarded-Port", b"Forwarded", b"X-Real-IP", b"X-Request-ID", b"X-Original-URL",
    b"X-Forwarded-User", b"True_Client_IP", b"X-Client-Cert-Subject",
    b"X_Client_Cert_Verify", b"Via", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"Proxy-Authenticate",
    b"Trailer", b"HTTP2-Settings", b"Proxy-Authentication-Info", b"Max-Forwards", b"Expect", b"TE", b"Upgrade",
)  # fmt: skip
BAD_NAMES: Weighted = (
    b"", b"X Y", b" X", b"\tX", b"X ", b"X\t", b"X@Y", b"X(Y)", b'"X"', b"X/Y", b"X\xe9", b"X\x00", b"X\x01",
    b"X\x7f", b"{X}",
    b"X" * 256, b"X" * 257,
)  # fmt: skip
SPECIAL: dict[bytes, Weighted] = {
    b"Max-Forwards": (b"0", b"5", b"x", b"-1", b"+1", b"99999999999999999999"),
    b"Expect": (b"100-continue", b"100-Continue", b"200-ok", b"y, 100-continue", b""),
    b"TE": (b"trailers", b"gzip", b"trailers, deflate", b"chunked"),
    b"Upgrade": (b"websocket", b"WebSocket", b"h2c", b"cow, websocket", b"TLS/1.2"),
    b"Via": (b"1.1 lbproxy", b"1.0 a, 1.1 b", b"1.1 lbproxy, 1.1 LBPROXY, 1.1 lbproxy, 1.1 lbproxy, 1.1 lbproxy"),
}
# Names that mean something to a gateway, of which near misses are made: those must mean nothing, or be refused.
KNOWN_NAMES: Weighted = (
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"TE", b"Via", b"Trailer",
    b"Keep-Alive", b"Authorization", b"User-Agent", b"Max-Forwards", b"Date", *MARKED_NAMES[4:14],
)  # fmt: skip
NEAR: Weighted = (
    b"-", b"_", b" ", b"\t", b".", b"s", b"\x00", b"\x0b", b"\xa0", b"\xc4\xb0", b"\xe2\x84\xaa", b"\xc5\xbf", b"\\",
    b"+", b":", b"\r", b"\n",
)  # fmt: skip
NAME_OCTETS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPACES: Weighted = (*([b" "] * 8), b"", b"  ", b"\t", b" \t ", b"\x0b", b"\xa0")
ENDS: Weighted = (*([b""] * 12), b" ", b"\t", b" \t")
SPLICES: Weighted = (
    b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\r\n", b"\r\n ", b"\r\n\t", b"\x00", b" ", b"\t", b":", b",", b"\x0b",
    b"\x0c", b"\x1b",
    b"\x7f", b"\x80", b"\xff", b"\r\nTransfer-Encoding: chunked", b"\r\nContent-Length: 5", b"\r\nHost: b",
    b"\nHost: b",
    b"\rTransfer-Encoding: chunked", b"\n\n", b"\r\n \r\n", b"0", b"%", b"#", b"_", b"\xc4\xb0", b"\xe2\x84\xaa",
)  # fmt: skip


def _pick(rng: random.Random, values: Weighted, sound: int) -> bytes:
    """Mostly one of the first `sound` values, which are good ones."""
    return rng.choice(values[:sound] if rng.random() < 0.8 else values)


def near_miss(rng: random.Random) -> bytes:
    """Almost a known name: one octet too many, too few or another, or only another spelling."""
    name = rng.choice(KNOWN_NAMES)
    at = rng.randrange(len(name) + 1)
    how = rng.random()
    if how < 0.4:
        return name[:at] + rng.choice(NEAR) + name[at:]
    if how < 0.6:
        return name[:at] + name[at + 1 :]
    if how < 0.75:
        return name[:at] + rng.choice(NEAR) + name[at + 1 :]
    if how < 0.9:
        return bytes(rng.choice((octet, octet ^ 32)) if octet > 64 else octet for octet in name)
    return name.replace(b"-", rng.choice((b"_", b"--", b"")))


def new_name(rng: random.Random) -> bytes:
    """A token that nobody has used before."""
    return bytes(rng.choices(NAME_OCTETS, k=rng.choice((1, 2, 8, 20, 40))))


def _field(rng: random.Random, *, is_request: bool) -> tuple[bytes, bytes]:
    odd = rng.random()
    if odd < 0.04:
        return near_miss(rng), _pick(rng, (b"5", b"chunked", b"close", b"a", *OTHER_VALUES), 5)
    if odd < 0.08:
        return new_name(rng), _pick(rng, OTHER_VALUES, 7)
    kind = rng.random()
    if kind < 0.08:
        return b"Content-Length", _pick(rng, LENGTHS, 10)
    if kind < 0.14:
        return b"Transfer-Encoding", _pick(rng, CODINGS, 8)
    if kind < 0.24:
        return b"Connection", _pick(rng, CONNECTIONS, 20)
    if kind < 0.25 and is_request:
        return b"Host", _pick(rng, HOSTS, 14)
    if kind < 0.50:
        name = rng.choice(MARKED_NAMES)
        return name, _pick(rng, SPECIAL.get(name, OTHER_VALUES), 7)
    if kind < 0.51:
        return rng.choice(BAD_NAMES), b"y"
    return rng.choice(PLAIN_NAMES), _pick(rng, OTHER_VALUES, 7)


def _line(rng: random.Random, name: bytes, value: bytes) -> bytes:
    odd = rng.random()
    if odd < 0.1:
        name = rng.choice((name.lower(), name.upper(), name.swapcase()))
    if odd > 0.9:
        return name + b":" + _pick(rng, SPACES, 12) + value + rng.choice(ENDS)
    return name + b": " + value


def response_field(rng: random.Random) -> bytes:
    """One line, without its end."""
    return _line(rng, *_field(rng, is_request=False))


def _lines(rng: random.Random, *, is_request: bool) -> list[bytes]:
    lines = []
    if is_request and rng.random() < 0.97:
        lines.append(_line(rng, b"Host", _pick(rng, HOSTS, 14)))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        lines.append(_line(rng, *_field(rng, is_request=is_request)))
    if len(lines) > 1 and rng.random() < 0.1:
        lines.append(rng.choice(lines))
    if rng.random() < 0.03:
        lines.append(_line(rng, b"Content-Length", rng.choice(LENGTHS)))
        lines.append(_line(rng, b"Content-Length", rng.choice(LENGTHS)))
    if rng.random() < 0.01:
        lines += _many(rng)
    if len(lines) > 1 and rng.random() < 0.2:
        rng.shuffle(lines)
    return lines


def _many(rng: random.Random) -> list[bytes]:
    """Fields around the limits: 100 of them, 32 KiB of them."""
    if rng.random() < 0.5:
        return [b"%b: %d" % (new_name(rng), number) for number in range(rng.randrange(85, 105))]
    return [b"%b: %b" % (new_name(rng), b"v" * rng.randrange(970)) for _ in range(rng.randrange(20, 31))]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to three small damages: something spliced in, a byte or a slice lost, replaced or doubled."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        how = rng.random()
        if how < 0.45:
            data = data[:at] + rng.choice(SPLICES) + data[at:]
        elif how < 0.6:
            data = data[:at] + data[at + 1 :]
        elif how < 0.75:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif how < 0.85:
            data = data[:at] + data[max(0, at - rng.randrange(1, 20)) :]
        else:
            ends = [found.start() for found in re.finditer(rb"\r\n", data)] or [at]
            at = rng.choice(ends)
            data = (
                data[:at] + rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"", b"\r\n\r\n")) + data[at + 2 :]
            )
    return data


def cut(data: bytes) -> bytes:
    """What the data plane would cut off the stream as one head: through the blank line, without a leading CRLF."""
    if data[:2] == b"\r\n":
        data = data[2:]
    end = data.find(b"\r\n\r\n")
    if end < 0:
        data = data.removesuffix(b"\r\n") + b"\r\n\r\n"
        end = data.find(b"\r\n\r\n")
    return data[: end + 4]


def request_head(rng: random.Random) -> bytes:
    """One request head, cut off at its blank line; about half of them are sound."""
    if rng.random() < 0.85:
        first = b"%b %b %b" % (rng.choice(METHODS[:20]), rng.choice(TARGETS[:12]), rng.choice(VERSIONS[:20]))
    else:
        first = b"%b %b %b" % (rng.choice(METHODS), rng.choice(TARGETS), rng.choice(VERSIONS))
    data = b"\r\n".join([first, *_lines(rng, is_request=True)]) + b"\r\n\r\n"
    return cut(mutate(rng, data) if rng.random() < 0.3 else data)


def response_head(rng: random.Random) -> bytes:
    """One response head, cut off at its blank line."""
    version = rng.choice(VERSIONS[:20]) if rng.random() < 0.9 else rng.choice(VERSIONS)
    first = b"%b %b%b" % (version, _pick(rng, STATUSES, 17), _pick(rng, REASONS, 8))
    data = b"\r\n".join([first, *_lines(rng, is_request=False)]) + b"\r\n\r\n"
    return cut(mutate(rng, data) if rng.random() < 0.3 else data)


def clean_request_head(rng: random.Random) -> bytes:
    """A request head that nobody has a reason to refuse."""
    lines = [b"Host: a", *(b"%b: v%d" % (rng.choice(PLAIN_NAMES), rng.randrange(99)) for _ in range(rng.randrange(6)))]
    framing = rng.choice((b"", b"Content-Length: %d" % rng.randrange(1 << 40), b"Transfer-Encoding: chunked"))
    lines += [framing] if framing else []
    rng.shuffle(lines)
    first = b"%b %b %b" % (rng.choice(METHODS[:14]), rng.choice((b"/", b"/a?b", b"http://a/x")), b"HTTP/1.1")
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


CHUNK_SIZES: Weighted = (
    b"0x5",
    b"+5",
    b"-5",
    b" 5",
    b"5 ",
    b"5\t",
    b"",
    b"g",
    b"5_0",
    b"F" * 16,
    b"F" * 40,
    b"0" * 30 + b"5",
)
EXTENSIONS: Weighted = (
    b";a",
    b";a=b",
    b';a="b;c"',
    b"; a",
    b" ;a",
    b";",
    b";a\x00",
    b";a\rb",
    b";a\nb",
    b";" + b"e" * 90,
    b",a",
)
TRAILERS: Weighted = (
    b"X-T: y\r\n", b"X-T:\r\n", b"X_T: y\r\n", b"Content-Length: 7\r\n", b"bad\r\n", b"X : y\r\n", b" fold\r\n",
    b"X: \x00\r\n",
    b"X: y\n", b": y\r\n", b"Transfer-Encoding: chunked\r\n", b"X: y\r", b"GET / HTTP/1.1\r\n", b"X: \xe9 \t\r\n",
)  # fmt: skip


def chunked_body(rng: random.Random) -> bytes:
    """A chunked body with what might follow it; about half of them are sound."""
    out = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        payload = rng.choice(
            (b"x", b"hello", b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"b" * 300, bytes([rng.randrange(256)]))
        )
        size = b"%x" % len(payload) if rng.random() < 0.8 else b"%05X" % len(payload)
        if rng.random() < 0.04:
            size = rng.choice(CHUNK_SIZES)
        extension = rng.choice(EXTENSIONS) if rng.random() < 0.1 else b""
        end = b"\r\n" if rng.random() < 0.97 else rng.choice((b"\n", b"\r", b"", b"XX", b"\r\r\n"))
        out.append(size + extension + b"\r\n" + payload + end)
    out.append(
        rng.choice((b"0\r\n", b"0\r\n", b"000\r\n", b"0;a=b\r\n", b"00", b"")) if rng.random() < 0.2 else b"0\r\n"
    )
    out += [rng.choice(TRAILERS) for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))]
    out.append(b"\r\n")
    data = b"".join(out)
    if rng.random() < 0.3:
        data = mutate(rng, data)
    return data + rng.choice((b"", b"", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", b"0\r\n\r\n"))


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The data in one to six pieces, cut anywhere."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
