"""OpenSSL's names for what failed."""

from __future__ import annotations

import ssl

import pytest

from lbproxy.dataplane.net.tls_reasons import reason_of


def failed(reason: str | None, text: str) -> ssl.SSLError:
    error = ssl.SSLError(1, text)
    error.reason = reason  # type: ignore[assignment]  # None where CPython knows no name
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (failed("NO_SHARED_CIPHER", "[SSL: NO_SHARED_CIPHER] no shared cipher (_ssl.c:1)"), "NO_SHARED_CIPHER"),
        (failed(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1)"), "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"),
        (failed(None, "something else"), ""),
        (failed("", ""), ""),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), ""),
        (ConnectionResetError("gone"), ""),
    ],
)
def test_a_name_or_none(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
