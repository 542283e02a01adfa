"""Bodies: ends exactly where RFC 9112 says, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.body import BodyError, ChunkedReader, LengthReader, UntilCloseReader, chunk, chunked


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
        (b"\t5\r\nhello\r\n", "bad_chunk"),
        (b"0 5\r\nhello\r\n", "bad_chunk"),
        (b"5 0\r\nhello\r\n", "bad_chunk"),
        (b"5 a\r\nhello\r\n", "bad_chunk"),
        (b"5 \x0b\r\nhello\r\n", "bad_chunk"),
        (b"5\x0c\r\nhello\r\n", "bad_chunk"),
        (b"5\xa0\r\nhello\r\n", "bad_chunk"),
        (b"5 \rhello\r\n", "bad_chunk"),
        (b"5 \nhello\r\n", "bad_chunk"),
        (b"5 \r\r\nhello\r\n", "bad_chunk"),
        (b" \r\nhello\r\n", "bad_chunk"),
        (b"5;\r\nhello\r\n", "bad_chunk"),
        (b"5;a;\r\nhello\r\n", "bad_chunk"),
        (b"5;a b\r\nhello\r\n", "bad_chunk"),
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
        (b"1;a=b\r\na\r\n" * 7_000, "chunk_overhead"),
        (b"0000000000000001\r\na\r\n" * 7_000, "chunk_overhead"),
        (b"1     \r\na\r\n" * 7_000, "chunk_overhead"),
        (b"1" + b" " * 20_000 + b"\r\na\r\n", "chunk_overhead"),
        # One line has a bound of its own, however much came before it.
        (b"%x\r\n%b\r\n5;" % (1 << 16, bytes(1 << 16)) + b"a" * 20_000 + b"\r\n", "chunk_overhead"),
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


@pytest.mark.parametrize("size", [1, 20])
def test_small_chunks_are_no_overhead_however_many_they_are(size: int) -> None:
    """`requests` sends a chunk for each item of a generator: lines of a file, tokens. Peers take any number of them."""
    reader = ChunkedReader(overhead_bytes=0)
    one = b"%x\r\n%b\r\n" % (size, b"x" * size)
    count = 200_000 // size
    assert len(feed_all(reader, one * count, 65_536)) == size * count
    assert len(reader.feed(b"3FF\r\n" + b"y" * 1023 + b"\r\n400\r\n" + b"z" * 1024 + b"\r\n0\r\n\r\n")) == 2047
    assert reader.done


def test_extensions_are_bounded_beyond_an_eighth_of_the_data() -> None:
    with pytest.raises(BodyError):
        ChunkedReader().feed((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 20)
    signed = b"1000;chunk-signature=" + b"a" * 64 + b"\r\n" + b"x" * 4096 + b"\r\n"
    assert len(feed_all(ChunkedReader(), signed * 2_000, 65_536)) == 4096 * 2_000


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("line", [b"5 ", b"5\t", b"5  \t ", b"5;a ", b"5 ; a = b\t", b'5;a="b" '])
def test_white_space_behind_a_size_is_skipped(line: bytes, step: int) -> None:
    """haproxy 2.6, nginx 1.22 and h11 take it, from both sides."""
    reader = ChunkedReader()
    assert feed_all(reader, line + b"\r\nhello\r\n0 \r\n\r\nGET /", step) == b"hello"
    assert reader.done and reader.rest == b"GET /"


@pytest.mark.parametrize("line", [b"5;", b"5 ;", b"5;a b=@", b"5;;", b'5;a="', b"5;\xe9"])
def test_odd_extensions_are_skipped_from_servers_of_a_lenient_pool(line: bytes) -> None:
    data = line + b"\r\nhello\r\n0;\r\n\r\nrest"
    reader = ChunkedReader(is_lenient=True)
    assert reader.feed(data) == b"hello" and reader.done and reader.rest == b"rest"
    with pytest.raises(BodyError):
        ChunkedReader().feed(data)


@pytest.mark.parametrize("line", [b" 5", b"0 5", b"5 5", b"0x5", b"+5", b"5\x0b", b"5;\x00", b"5;\ra", b"5;\na", b""])
def test_a_lenient_pool_guesses_no_size(line: bytes) -> None:
    with pytest.raises(BodyError):
        ChunkedReader(is_lenient=True).feed(line + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "is_done", "trailers", "sent"),
    [
        (b"", False, b"", b""),
        (b"hello", False, b"", b"5\r\nhello\r\n"),
        (b"", True, b"", b"0\r\n\r\n"),
        (b"hello", True, b"", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"hello", True, b"A: 1\r\nB: 2\r\n", b"5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n"),
        (b"hello", False, b"A: 1\r\n", b"5\r\nhello\r\n"),
    ],
)
def test_a_piece_in_chunked_coding(data: bytes, is_done: bool, trailers: bytes, sent: bytes) -> None:
    assert chunked(data, is_done=is_done, trailers=trailers) == sent
