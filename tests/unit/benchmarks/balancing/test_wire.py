"""The little HTTP of load and model servers."""

import pytest

from benchmarks.balancing import wire


def test_a_request_says_who_it_is_and_how_much_work() -> None:
    data = wire.request(17, 0.1234567)
    found = wire.cut(data)
    assert found is not None
    head, length = found
    assert length == len(data)
    assert wire.parse_target(head) == (17, 0.123457)


def test_a_message_is_cut_when_all_of_it_is_there() -> None:
    data = wire.answer(503)
    assert all(wire.cut(data[:end]) is None for end in range(len(data)))
    found = wire.cut(data + b"HTTP/1.1 200 next")
    assert found is not None and found[1] == len(data)
    assert wire.parse_status(found[0]) == 503


def test_names_are_matched_without_case_and_spaces_do_not_matter() -> None:
    found = wire.cut(b"HTTP/1.1 200 OK\r\ncontent-length:2 \r\nconnection: CLOSE\r\n\r\nok")
    assert found is not None and wire.is_last(found[0])
    assert not wire.is_last(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n")


def test_a_message_without_a_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Content-Length"):
        wire.cut(b"HTTP/1.1 200 OK\r\n\r\n")
