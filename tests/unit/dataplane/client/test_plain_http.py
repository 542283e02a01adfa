"""What is taken for a request in plain HTTP where a handshake belongs; the answers are in test_client_tls.py."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.client.plain_http import FAREWELL, speaks_http1, speaks_http2
from lbproxy.protocol.h2.codes import GOAWAY, INADEQUATE_SECURITY, PREFACE, SETTINGS


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /predict",  # the rest of a long line comes later
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://a/ HTTP/1.1\r\n",
        b"PROPFIND /x HTTP/1.0\r\n",
        b"CONNECT a.org:443 HTTP/1.1\r\n",
    ],
)
def test_requests(first: bytes) -> None:
    assert speaks_http1(first) and not speaks_http2(first)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"G",
        b"get / HTTP/1.1\r\n",
        b"GET x\r\n",  # Redis
        b"* HTTP/1.1\r\n",
        b"EHLO a.org\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\nGET / HTTP/1.1\r\n",
        b"A" * 21 + b" / HTTP/1.1\r\n",
        b"CONNECT " + b"a" * 256 + b":443 HTTP/1.1\r\n",
    ],
)
def test_what_is_none(first: bytes) -> None:
    assert not speaks_http1(first) and not speaks_http2(first)


def test_http2() -> None:
    assert speaks_http2(PREFACE) and not speaks_http1(PREFACE)
    assert FAREWELL[3] == SETTINGS and FAREWELL[9 + 3] == GOAWAY
    assert int.from_bytes(FAREWELL[9 + 9 + 4 :][:4], "big") == INADEQUATE_SECURITY
