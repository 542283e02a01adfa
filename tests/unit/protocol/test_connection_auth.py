"""Which credentials and challenges belong to a connection: those of NTLM and Negotiate, however they are written."""

from __future__ import annotations

import pytest

from lbproxy.protocol.connection_auth import binds, is_bound_by


@pytest.mark.parametrize(
    "value",
    [b"NTLM TlRMTVNTUAAB", b"ntlm TlRM", b"Negotiate YII=", b"NEGOTIATE", b"negotiate\tx", b"Kerberos x", b" NTLM"],
)
def test_credentials_that_bind(value: bytes) -> None:
    assert is_bound_by(value)


@pytest.mark.parametrize(
    "value", [b"", b"Basic TlRMTQ==", b"Bearer ntlm", b"NTLMv2x y", b"Negotiate-Ex y", b"Digest username=NTLM"]
)
def test_credentials_that_do_not(value: bytes) -> None:
    assert not is_bound_by(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"www-authenticate", b"NTLM"),
        (b"www-authenticate", b"negotiate"),
        (b"www-authenticate", b"Negotiate oYG2MIGz"),
        (b"www-authenticate", b"Basic realm=x, Negotiate"),
        (b"www-authenticate", b'Basic realm="a, b",NTLM'),
        (b"www-authenticate", b"NTLM,Basic realm=x"),
        (b"www-authenticate", b"Digest realm=x ,\tNegotiate , Basic"),
        (b"proxy-authenticate", b"NTLM"),
        (b"authentication-info", b"Negotiate oYG2"),
        (b"persistent-auth", b"true"),
        (b"persistent-auth", b""),
    ],
)
def test_challenges_that_bind(name: bytes, value: bytes) -> None:
    assert binds(name, value)


@pytest.mark.parametrize(
    "value", [b"", b"Basic realm=x", b'Digest realm="x", nonce="n"', b"Bearer realm=antlm", b"NTLMish", b"X-Negotiate"]
)
def test_challenges_that_do_not(value: bytes) -> None:
    assert not binds(b"www-authenticate", value)
