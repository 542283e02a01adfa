"""Fields about the client."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.exchange import forwarding
from lbproxy.dataplane.exchange.forwarding import (
    address_of,
    client_address,
    connection_lines,
    kept_request_id,
    node_name,
    port_line,
    published_lines,
    request_lines,
)


def test_lines_of_an_untrusted_connection() -> None:
    assert connection_lines("10.0.0.1") == b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"


@pytest.mark.parametrize(
    ("client_ip", "node"),
    [("10.0.0.1", b"10.0.0.1"), ("2001:db8::1", b"2001:db8::1"), ("fe80::1%eth0", b"fe80::1"), ("unix", b"unknown")],
)
def test_a_node_is_an_address_or_unknown(client_ip: str, node: bytes) -> None:
    """RFC 7239 section 6.2."""
    assert node_name(client_ip) == node
    assert connection_lines(client_ip).startswith(b"X-Forwarded-For: " + node + b"\r\n")
    assert request_lines({}, client_ip, b"", ()).startswith(b"X-Forwarded-For: " + node + b"\r\n")


def test_a_trusted_peer_is_appended_to_and_believed() -> None:
    known = {
        b"x-forwarded-for": [b"1.1.1.1", b"2.2.2.2"],
        b"x-forwarded-proto": [b"https"],
        b"forwarded": [b"for=1"],
        b"x-real-ip": [b"1.1.1.1"],
        b"x-forwarded-prefix": [b"/a", b"/b"],
        b"x-request-id": [b"the exchange has it"],
    }
    assert request_lines(known, "10.0.0.1", b"X-Forwarded-Host: h\r\n", ()) == (
        b"X-Forwarded-Host: h\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"Forwarded: for=1\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Prefix: /a\r\nX-Forwarded-Prefix: /b\r\n"
    )


def test_edited_names_are_left_to_the_edits() -> None:
    known = {b"true-client-ip": [b"1.1.1.1"]}
    lines = request_lines(known, "10.0.0.1", b"", {b"x-forwarded-proto", b"x-forwarded-for"})
    assert lines == b"True-Client-IP: 1.1.1.1\r\n"
    assert not request_lines(known, "10.0.0.1", b"", {b"x-forwarded-proto", b"x-forwarded-for", b"true-client-ip"})


@pytest.mark.parametrize(
    ("host", "known", "skip", "lines", "takes_port"),
    [
        ("a.example", {}, (), "X-Forwarded-Host: a.example\r\n", True),
        ("a.example:8443", {}, (), "X-Forwarded-Host: a.example:8443\r\nX-Forwarded-Port: 8443\r\n", False),
        ("[2001:db8::1]", {}, (), "X-Forwarded-Host: [2001:db8::1]\r\n", True),
        ("[2001:db8::1]:81", {}, (), "X-Forwarded-Host: [2001:db8::1]:81\r\nX-Forwarded-Port: 81\r\n", False),
        ("a:", {}, (), "X-Forwarded-Host: a:\r\n", True),
        ("", {}, (), "X-Forwarded-Port: 5000\r\n", False),  # with the Host that is made up
        ("a:1", {}, (b"x-forwarded-host", b"x-forwarded-port"), "", False),
        ("a", {b"x-forwarded-port": [b"444"]}, (), "X-Forwarded-Host: a\r\n", False),
        (
            "a",
            {b"x-forwarded-proto": [b"http", b"HTTPS"]},
            (),
            "X-Forwarded-Host: a\r\nX-Forwarded-Port: 443\r\n",
            False,
        ),
        ("a", {b"x-forwarded-proto": [b"https, http"]}, (), "X-Forwarded-Host: a\r\nX-Forwarded-Port: 80\r\n", False),
        ("a:1", {b"x-forwarded-host": [b"b, c:8"]}, (), "X-Forwarded-Port: 8\r\n", False),
        ("a:1", {b"x-forwarded-host": [b"b"]}, (), "", True),
    ],
)
def test_the_port_is_the_one_that_the_client_sees(
    host: str, known: dict[bytes, list[bytes]], skip: tuple[bytes, ...], lines: str, takes_port: bool
) -> None:
    assert published_lines(host, known, skip, "127.0.0.1:5000") == (lines.encode(), takes_port)


@pytest.mark.parametrize(
    ("published", "scheme", "port"), [(0, b"http", 80), (0, b"https", 443), (8443, b"http", 8443), (81, b"https", 81)]
)
def test_a_host_without_port_means_that_of_the_scheme(published: int, scheme: bytes, port: int) -> None:
    assert port_line(published, scheme) == b"X-Forwarded-Port: %d\r\n" % port


# nginx's realip module reads each of these the same way, but for zones, which it does not know.
ELEMENTS = [
    ("203.0.113.9", "203.0.113.9"),
    ("203.0.113.9:43210", "203.0.113.9"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[2001:db8::1]:4711", "2001:db8::1"),
    ("2001:DB8:0::1", "2001:db8::1"),
    ("2001:db8::1:4711", "2001:db8::1:4711"),  # without brackets it is all address
    ("::ffff:203.0.113.9", "203.0.113.9"),
    ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
    ("::ffff:cb00:7109", "203.0.113.9"),
    ("fe80::1%eth0", "fe80::1"),
    ("[fe80::1%25eth0]:80", "fe80::1"),
    ("unknown", ""),
    ("unix:", ""),
    ("_hidden", ""),
    ("localhost", ""),
    ("203.0.113.9:", ""),
    ("203.0.113.9:x", ""),
    ("203.0.113.9:123456", ""),
    ("203.0.113", ""),
    ("203.0.113.09", ""),
    ("203.0.113.9/32", ""),
    ("[203.0.113.9", ""),
    ("2001:db8::1]:80", ""),
    ("0x7f.1", ""),
    ("", ""),
]


@pytest.mark.parametrize(("element", "address"), ELEMENTS)
def test_an_element_of_x_forwarded_for(element: str, address: str) -> None:
    assert address_of(element) == address


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
        ([b"203.0.113.9:43210, 10.0.0.1:80"], "203.0.113.9"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"6.6.6.6, 203.0.113.9, , 10.0.0.1,"], "203.0.113.9"),
        ([b"203.0.113.9", b"", b" , "], "203.0.113.9"),
        ([b"203.0.113.9, ::ffff:10.0.0.1"], "203.0.113.9"),
        ([b"::ffff:203.0.113.9"], "203.0.113.9"),
        ([b"6.6.6.6, unknown, 10.0.0.1"], "10.0.0.1"),
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


def test_lines_of_hosts_are_remembered_and_bounded() -> None:
    for number in range(3000):
        for _ in range(2):
            lines, takes_port = published_lines(f"h{number}:81", {}, frozenset(), "local")
            assert lines == b"X-Forwarded-Host: h%d:81\r\nX-Forwarded-Port: 81\r\n" % number and not takes_port
        published_lines("h" * (257 + number), {}, frozenset(), "local")
        assert len(forwarding._published._known) <= 1024
    assert max(map(len, forwarding._published._known)) <= 256
