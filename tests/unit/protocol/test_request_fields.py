"""What the names of a request's fields decide: what is read, what goes on, what is dropped or refused."""

from __future__ import annotations

import pytest

from lbproxy.protocol.request_fields import RequestFields


def read(*lines: str, underscores: str = "drop") -> RequestFields:
    raw = "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
    fields = RequestFields(raw, 0, 100)
    fields.read(underscores)
    return fields


def test_what_is_read_is_not_passed_on() -> None:
    fields = read("Host: a", "Content-Length: 12", "Connection: keep-alive, X-Own", "Accept: */*")
    assert (fields.host, fields.n_hosts) == (b"a", 1)
    assert (fields.length, fields.n_lengths) == (12, 1)
    assert set(fields.options) == {b"keep-alive", b"x-own"}
    assert fields.lines() == b"Accept: */*\r\n"


def test_repeated_ones_are_counted() -> None:
    fields = read("Host: a", "host: b", "Content-Length: 1", "Content-Length: 1")
    assert (fields.host, fields.n_hosts, fields.n_lengths) == (b"b", 2, 2)


def test_what_the_log_names_goes_on_all_the_same() -> None:
    fields = read("User-Agent: curl/8", "Referer: /from", "Authorization: Bearer x")
    assert (fields.user_agent, fields.referer, fields.binds) == ("curl/8", "/from", False)
    assert fields.lines() == b"User-Agent: curl/8\r\nReferer: /from\r\nAuthorization: Bearer x\r\n"
    assert read("Authorization: NTLM abc").binds


def test_claims_are_kept_apart() -> None:
    fields = read("X-Forwarded-For: 10.0.0.1", "Forwarded: for=b", "X-Client-Cert-Subject: CN=me")
    assert fields.claims == [b"x-forwarded-for", b"10.0.0.1", b"forwarded", b"for=b"]
    assert fields.lines() == b""


@pytest.mark.parametrize(
    ("underscores", "lines", "dropped", "is_refused"),
    [("drop", b"", 1, False), ("pass", b"a_b: 1\r\n", 0, False), ("reject", b"", 0, True)],
)
def test_underscores(underscores: str, lines: bytes, dropped: int, is_refused: bool) -> None:
    fields = read("a_b: 1", underscores=underscores)
    assert (fields.lines(), fields.underscore_dropped, fields.refusal is not None) == (lines, dropped, is_refused)


def test_an_underscored_name_of_lbproxy_s_own_never_passes() -> None:
    assert read("X_Forwarded_For: 10.0.0.1", underscores="pass").lines() == b""
