"""Fields about the client."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.forwarding import client_address, connection_lines, kept_request_id, request_lines


def test_lines_of_an_untrusted_connection() -> None:
    assert connection_lines("10.0.0.1", 5000) == (
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 5000\r\n"
    )


def test_a_trusted_peer_is_appended_to_and_believed() -> None:
    known = {b"x-forwarded-for": [b"1.1.1.1", b"2.2.2.2"], b"x-forwarded-proto": [b"https"], b"forwarded": [b"for=1"]}
    assert request_lines(known, "10.0.0.1", 5000, b"X-Forwarded-Host: h\r\n", ()) == (
        b"X-Forwarded-Host: h\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Port: 5000\r\nForwarded: for=1\r\n"
    )


def test_edited_names_are_left_to_the_edits() -> None:
    lines = request_lines({}, "10.0.0.1", 80, b"", {b"x-forwarded-proto", b"x-forwarded-for"})
    assert lines == b"X-Forwarded-Port: 80\r\n"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ([], "10.0.0.9"),
        ([b"1.1.1.1"], "1.1.1.1"),
        ([b"6.6.6.6, 1.1.1.1, 10.0.0.1"], "1.1.1.1"),
        ([b"6.6.6.6", b"1.1.1.1,10.0.0.1"], "1.1.1.1"),
        ([b"6.6.6.6, junk, 10.0.0.1"], "10.0.0.1"),
        ([b"10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        ([b"[2001:db8::1], 10.0.0.1"], "2001:db8::1"),
    ],
)
def test_the_client_is_the_first_untrusted_address_from_the_right(chain: list[bytes], client: str) -> None:
    known = {b"x-forwarded-for": chain} if chain else {}
    assert client_address(known, "10.0.0.9", lambda ip: ip.startswith("10.")) == client


def test_one_sane_request_id_is_kept() -> None:
    assert kept_request_id({b"x-request-id": [b"abc-1"]}) == "abc-1"
    assert kept_request_id({b"x-request-id": [b"a", b"b"]}) == ""
    assert kept_request_id({b"x-request-id": [b"a b"]}) == ""
    assert kept_request_id({}) == ""
