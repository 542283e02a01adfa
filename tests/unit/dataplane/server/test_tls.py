"""What a failed handshake with a server means."""

from __future__ import annotations

import ssl

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.verdicts import TLS_FAULTS
from lbproxy.dataplane.net.tls_transport import TlsTransport
from lbproxy.dataplane.server.tls import ServerTlsConnection, tls_fault
from tests.support.fake_transport import FakeLb


class Sent(TlsTransport):
    """Has handed so much to the kernel, `left` bytes of which have not left yet."""

    def __init__(self, left: int, wire_written: int) -> None:
        self.left = left
        self.wire_written = wire_written

    def get_write_buffer_size(self) -> int:
        return self.left


def ssl_error(reason: str | None, text: str = "text") -> ssl.SSLError:
    error = ssl.SSLError(1, text)
    error.reason = reason  # type: ignore[assignment]  # None where CPython knows no name
    return error


def verification(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "fault", "words"),
    [
        (verification("certificate has expired"), errors.TLS_VERIFY, "not accepted: certificate has expired"),
        (ssl_error("WRONG_VERSION_NUMBER"), errors.TLS_HANDSHAKE, "it does not speak TLS on this port"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), errors.TLS_HANDSHAKE, "it wants a client certificate"),
        (ssl_error("NO_SHARED_CIPHER"), errors.TLS_HANDSHAKE, "the TLS handshake failed: no shared cipher"),
        (
            ssl_error(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"),
            errors.TLS_HANDSHAKE,
            "it speaks none of the protocols that it was offered (ALPN)",
        ),
        (ssl_error(None, "[SSL] some new reason (_ssl.c:1)"), errors.TLS_HANDSHAKE, "failed: some new reason"),
        (ConnectionResetError(), errors.TLS_HANDSHAKE, "closed the connection during the TLS handshake"),
    ],
)
def test_faults(error: Exception, fault: errors.Fault, words: str) -> None:
    found, detail = tls_fault(error)
    assert found is fault
    assert words in detail


def test_nothing_was_sent_so_any_method_may_go_to_another_server() -> None:
    for fault in TLS_FAULTS:
        assert fault.retry is errors.Retry.ALWAYS
        assert fault.blames


@pytest.mark.parametrize(("left", "is_all"), [(2622, True), (2621, False), (2300, False), (0, False)])
def test_a_request_in_many_small_records_has_left_when_one_of_them_has(left: int, is_all: bool) -> None:
    """A head of 300 bytes and a hundred pieces of one byte are 400 bytes, and 322 + 100 * 23 on the wire.

    Without the head, 2300 bytes are left, more than was written; to send the request again would be to send it twice.
    """
    with FakeLb() as lb:
        connection = ServerTlsConnection(lb.services, next(iter(lb.wiring.pools["app"].servers.values())))
    connection.written, connection._written_before = 1400, 1000
    connection._wire_before = 5000
    connection.transport = Sent(left, 5000 + 322 + 100 * 23)
    assert connection._nothing_has_left() is is_all
