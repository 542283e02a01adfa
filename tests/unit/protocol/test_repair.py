"""What a server's head may lack and still be read, and what is never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.http1 import HeadError, ResponseHead, parse_response_head
from lbproxy.protocol.repair import lenient_end, one_length, repaired

OK = b"HTTP/1.1 200 OK\r\n"


def parse(raw: bytes, *, is_lenient: bool = True) -> ResponseHead:
    return parse_response_head(raw, max_fields=20, is_lenient=is_lenient)


def is_refused(raw: bytes, *, is_lenient: bool) -> bool:
    try:
        parse(raw, is_lenient=is_lenient)
    except HeadError:
        return True
    return False


# --- for every pool -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nX: y\r\ncontent-length:\t5 \r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: 5,5\t,5\r\nContent-Length: 5\r\n",
    ],
)
def test_equal_lengths_are_one(lines: bytes) -> None:
    head = parse(OK + lines + b"A: b\r\n\r\n", is_lenient=False)
    assert head.content_length == 5 and head.keep_alive
    assert head.wire.lower().count(b"content-length") == 1 and (b"A", b"b") in head.fields


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 05\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: 5,\r\n",
        b"Content-Length: ,5\r\n",
        b"Content-Length: +5, +5\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length : 5\r\n",
        b"Content-Length: 9223372036854775808\r\nContent-Length: 9223372036854775808\r\n",
        b"Content-Length: \xb2\r\nContent-Length: \xb2\r\n",
    ],
)
def test_lengths_of_which_two_readings_exist_are_refused(lines: bytes) -> None:
    assert is_refused(OK + lines + b"\r\n", is_lenient=False)


def test_a_head_with_one_length_is_left_alone() -> None:
    assert parse(OK + b"Content-Length: 5\r\n\r\n", is_lenient=False).content_length == 5
    assert parse(OK + b"\r\n", is_lenient=False).content_length is None


@pytest.mark.parametrize(
    ("values", "one"),
    [
        ([b"5"], b"5"),
        ([b"5", b"5"], b"5"),
        ([b"5 ,\t5", b"5"], b"5"),
        ([b"5", b"05"], b""),
        ([b"5,", b"5"], b""),
        ([b"", b""], b""),
        ([b"\xb2", b"\xb2"], b""),
        ([b"+5, +5"], b""),
    ],
)
def test_lengths_are_one_where_their_digits_are_the_same(values: list[bytes], one: bytes) -> None:
    assert one_length(values) == one


@pytest.mark.parametrize("status", [600, 799, 999])
def test_statuses_that_have_no_class_are_passed_on(status: int) -> None:
    head = parse(b"HTTP/1.1 %d Odd\r\nContent-Length: 5\r\n\r\n" % status, is_lenient=False)
    assert (head.status, head.content_length, head.is_bodiless) == (status, 5, False)
    assert head.wire.startswith(b"HTTP/1.1 %d Odd\r\n" % status)


@pytest.mark.parametrize("status", [b"099", b"000", b"99", b"1000", b"20x", b"-20"])
def test_statuses_that_are_no_statuses_are_refused(status: bytes) -> None:
    for is_lenient in (False, True):
        assert is_refused(b"HTTP/1.1 " + status + b" Odd\r\nContent-Length: 5\r\n\r\n", is_lenient=is_lenient)


def test_a_later_minor_version_is_read_as_1_1() -> None:
    head = parse(b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\n", is_lenient=False)
    assert (head.content_length, head.keep_alive) == (5, True)
    assert head.wire.startswith(OK)


def test_chunked_from_http_1_0_is_read_and_the_connection_not_kept() -> None:
    raw = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
    head = parse(raw + b"\r\n", is_lenient=False)
    assert head.chunked and not head.keep_alive
    assert is_refused(raw + b"Content-Length: 5\r\n\r\n", is_lenient=False)


# --- where the pool is lenient --------------------------------------------------------------------------------------

REPAIRED = {
    "bare LF": (b"HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\n", b"X: y\r\n"),
    "fold": (OK + b"X: y\r\n  z\r\n\tw\r\nContent-Length: 5\r\n\r\n", b"X: y z w\r\n"),
    "fold of an empty value": (OK + b"X:\r\n y\r\nContent-Length: 5\r\n\r\n", b"X:  y\r\n"),
    "space before the colon": (OK + b"X : y\r\nContent-Length \t: 5\r\n\r\n", b"X: y\r\n"),
    "two spaces": (b"HTTP/1.1  200  OK\r\nContent-Length: 5\r\n\r\n", b""),
    "tabs": (b"HTTP/1.1\t200\tOK\r\nContent-Length: 5\r\n\r\n", b""),
    "control": (OK + b"X: a\x01b\x1b[1m\r\nContent-Length: 5\r\n\r\n", b"X: a b [1m\r\n"),
    "control in the reason": (b"HTTP/1.1 200 O\x07K\r\nContent-Length: 5\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_what_a_lenient_pool_reads(name: str) -> None:
    raw, lines = REPAIRED[name]
    assert is_refused(raw, is_lenient=False)
    head = parse(raw)
    assert (head.status, head.content_length, head.keep_alive) == (200, 5, True)
    assert head.lines.replace(b":  y", b": y") == lines.replace(b":  y", b": y")
    assert not is_refused(head.wire + b"\r\n", is_lenient=False), "what is sent is not strict"


def test_a_length_beside_chunked_is_dropped_and_the_connection_with_it() -> None:
    for lines in (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n",
    ):
        head = parse(OK + lines + b"\r\n")
        assert (head.chunked, head.content_length, head.keep_alive) == (True, None, False)
        assert not head.is_shared
        assert is_refused(OK + lines + b"\r\n", is_lenient=False)


NEVER = {
    "a lone LF among CR LF": OK + b"X: y\nSet-Cookie: evil=1\r\nContent-Length: 5\r\n\r\n",
    "a lone LF behind the status line": b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
    "a lone CR": OK + b"X: y\rSet-Cookie: evil=1\r\nContent-Length: 5\r\n\r\n",
    "CR among LF": b"HTTP/1.1 200 OK\nX: y\r\nContent-Length: 5\n\n",
    "CR CR LF": OK + b"X: y\r\r\nContent-Length: 5\r\n\r\n",
    "NUL": OK + b"X: y\x00z\r\nContent-Length: 5\r\n\r\n",
    "folded length": OK + b"Content-Length:\r\n 5\r\n\r\n",
    "folded coding": OK + b"Transfer-Encoding: chunked\r\n , gzip\r\n\r\n",
    "folded connection": OK + b"Connection: keep-alive\r\n , close\r\nContent-Length: 5\r\n\r\n",
    "fold behind the status line": OK + b" X: y\r\nContent-Length: 5\r\n\r\n",
    "a line of white space": OK + b"X: y\r\n \r\nContent-Length: 5\r\n\r\n",
    "no colon": OK + b"bad\r\nContent-Length: 5\r\n\r\n",
    "no name": OK + b": y\r\nContent-Length: 5\r\n\r\n",
    "space in a name": OK + b"X Y: z\r\nContent-Length: 5\r\n\r\n",
    "two lengths behind spaces": OK + b"Content-Length : 5\r\nContent-Length: 6\r\n\r\n",
    "control in a length": OK + b"Content-Length: 5\x0b\r\n\r\n",
    "control in a coding": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding : gzip\r\n\r\n",
    "another version": b"HTTP/2.0  200 OK\r\nContent-Length: 5\r\n\r\n",
    "no version": b"ICY 200 OK\r\nContent-Length: 5\r\n\r\n",
    "white space in front": b" HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("name", NEVER)
def test_what_no_pool_reads(name: str) -> None:
    for is_lenient in (False, True):
        assert is_refused(NEVER[name], is_lenient=is_lenient)


def test_what_is_repaired_has_no_more_fields_than_allowed() -> None:
    with pytest.raises(HeadError) as caught:
        parse(b"HTTP/1.1 200 OK\n" + b"A: b\n" * 21 + b"\n")
    assert caught.value.fault.word == "response_header_too_large"


def test_where_a_lenient_head_ends() -> None:
    assert lenient_end(OK + b"A: b\r\n\r\n\n\n") == len(OK) + 8
    assert lenient_end(b"HTTP/1.1 200 OK\nA: b\n\nbody\r\n\r\n") == 22
    for partial in (b"", b"HTTP/1.1 200 OK", OK, b"HTTP/1.1 200 OK\nA: b\n", OK + b"A: b\r\n\r"):
        assert lenient_end(partial) == -1


@pytest.mark.parametrize(
    "mixed",
    [
        OK + b"Content-Length: 5\r\n\nhello",
        OK + b"X: y\nZ",
        b"HTTP/1.1 200 OK\nX: y\r\n",
        b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\nX\r",
        b"\n",
    ],
)
def test_a_head_with_mixed_line_ends_ends_at_once_and_is_refused(mixed: bytes) -> None:
    end = lenient_end(mixed)
    assert end == (-1 if mixed == b"\n" else len(mixed))
    assert is_refused(mixed[:end], is_lenient=True)


@given(
    st.lists(st.sampled_from([*(raw for raw, _ in REPAIRED.values()), *NEVER.values()]), min_size=2, max_size=2),
    st.data(),
)
def test_whatever_is_repaired_is_strict(pair: list[bytes], data: st.DataObject) -> None:
    """Two odd heads spliced anywhere: what the strict parser takes of the result reads the same again."""
    cut = [data.draw(st.integers(0, len(raw))) for raw in pair]
    raw = pair[0][: cut[0]] + pair[1][cut[1] :]
    made = repaired(raw)
    if made is None or is_refused(made[0], is_lenient=False):
        if is_refused(raw, is_lenient=False):
            assert is_refused(raw, is_lenient=True)
        return
    once = parse(made[0], is_lenient=False)
    sent = b"HTTP/1.1 %d %b\r\n%b\r\n" % (once.status, once.reason, once.lines)
    again = parse(sent, is_lenient=False)
    assert (again.status, again.fields, again.content_length, again.chunked) == (once.status, once.fields, None, False)
