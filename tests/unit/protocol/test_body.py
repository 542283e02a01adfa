"""Bodies: ends exactly where RFC 9112 says, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.body import BodyError, ChunkedReader, LengthReader, UntilCloseReader, chunk


def feed_all(reader: ChunkedReader, data: bytes, step: int) -> bytes:
    out = b""
    for start in range(0, len(data), step):
        if reader.done:
            reader.rest += data[start : start + step]
            continue
        out += reader.feed(data[start : start + step])
    return out


@pytest.mark.parametrize("step", range(1, 40))
def test_chunks_are_decoded_however_they_are_cut(step: int) -> None:
    reader = ChunkedReader()
    data = b'5\r\nhello\r\n00003;a="b;c"\r\nabc\r\n0\r\nA: b\r\nC:\t d \r\n\r\nGET / HTTP/1.1'
    assert feed_all(reader, data, step) == b"helloabc"
    assert reader.done and reader.rest == b"GET / HTTP/1.1"
    assert reader.trailers == [(b"A", b"b"), (b"C", b"d")]


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"5\nhello\r\n", "bad_chunk"),
        (b"5\r\nhello\n0\r\n\r\n", "bad_chunk"),
        (b"5\r\nhelloX\r\n", "bad_chunk"),
        (b"5\r\nhelloXY0\r\n", "bad_chunk"),
        (b"0x5\r\nhello\r\n", "bad_chunk"),
        (b"+5\r\nhello\r\n", "bad_chunk"),
        (b"-5\r\nhello\r\n", "bad_chunk"),
        (b" 5\r\nhello\r\n", "bad_chunk"),
        (b"5 \r\nhello\r\n", "bad_chunk"),
        (b"5_0\r\n", "bad_chunk"),
        (b"\r\nhello\r\n", "bad_chunk"),
        (b";a\r\n", "bad_chunk"),
        (b"5;a\rb\r\nhello\r\n", "bad_chunk"),
        (b"5;a\x00\r\nhello\r\n", "bad_chunk"),
        (b"FFFFFFFFFFFFFFFF\r\n", "bad_chunk"),
        (b"10000000000000005\r\nhello\r\n", "bad_chunk"),
        (b"zz\r\n", "bad_chunk"),
        (b"0\r\nA b\r\n\r\n", "bad_chunk"),
        (b"0\r\nA : b\r\n\r\n", "bad_chunk"),
        (b"0\r\nA: b\n\r\n", "bad_chunk"),
        (b"0\r\nA: b\r\n folded\r\n\r\n", "bad_chunk"),
        (b"0\r\nA: \x00\r\n\r\n", "bad_chunk"),
        (b"5;" + b"a" * 20_000 + b"\r\n", "chunk_overhead"),
        (b"1\r\na\r\n" * 7_000, "chunk_overhead"),
        (b"0\r\nA: " + b"a" * 9_000 + b"\r\n\r\n", "trailer_too_large"),
        (b"0\r\n" + b"A: b\r\n" * 70 + b"\r\n", "trailer_too_large"),
    ],
)
def test_a_malformed_chunked_body_is_refused(data: bytes, word: str, step: int) -> None:
    with pytest.raises(BodyError) as caught:
        reader = ChunkedReader()
        feed_all(reader, data, step)
    assert caught.value.fault.word == word


def test_a_truncated_body_is_never_done() -> None:
    whole = b"5\r\nhello\r\n0\r\n\r\n"
    for end in range(len(whole)):
        reader = ChunkedReader()
        reader.feed(whole[:end])
        assert not reader.done


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(1, 50))
def test_what_is_chunked_comes_back(pieces: list[bytes], step: int) -> None:
    data = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
    reader = ChunkedReader()
    assert feed_all(reader, data + b"next", step) == b"".join(pieces)
    assert reader.done and reader.rest == b"next"


def test_length_reader_stops_at_its_length() -> None:
    reader = LengthReader(5)
    assert reader.feed(b"abc") == b"abc" and not reader.done
    assert reader.feed(b"defg") == b"de" and reader.done and reader.rest == b"fg"
    assert LengthReader(0).done


def test_until_close_is_never_done_by_itself() -> None:
    reader = UntilCloseReader()
    assert reader.feed(b"abc") == b"abc" and not reader.done


def test_a_token_a_chunk_is_fine_in_a_response_but_extensions_are_bounded() -> None:
    reader = ChunkedReader(counts_sizes=False)
    assert len(reader.feed(b"1\r\na\r\n" * 50_000)) == 50_000
    with pytest.raises(BodyError):
        ChunkedReader(counts_sizes=False).feed((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 20)
