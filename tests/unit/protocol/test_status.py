"""The status line."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from lbproxy.protocol.status import REASONS, reason_of, status_line


def test_status_line_is_our_version() -> None:
    assert status_line(200, b"OK") == b"HTTP/1.1 200 OK\r\n"
    assert status_line(299, b"Odd") == b"HTTP/1.1 299 Odd\r\n"


@pytest.mark.parametrize("status", REASONS)
def test_reasons_are_the_registered_ones(status: int) -> None:
    renamed = {
        413: "Content Too Large",
        414: "URI Too Long",
        416: "Range Not Satisfiable",
        422: "Unprocessable Content",
    }  # in Python since 3.13
    assert REASONS[status].decode() == renamed.get(status, HTTPStatus(status).phrase)


def test_other_codes_have_a_reason_too() -> None:
    found = [reason_of(status) for status in (422, 502, 418, 299)]
    assert found == [b"Unprocessable Content", b"Bad Gateway", b"I'm a Teapot", b"Unknown"]
