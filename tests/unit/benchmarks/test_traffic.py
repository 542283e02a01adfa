"""The traffic of an API in production, made from a seed."""

from __future__ import annotations

from benchmarks.traffic import Traffic
from lbproxy.protocol.http1 import parse_request_head, parse_response_head


def test_a_seed_makes_the_same_traffic_again() -> None:
    one, other, third = Traffic(7), Traffic(7), Traffic(8)
    made = [(one.request(), one.answer()) for _ in range(20)]
    assert made == [(other.request(), other.answer()) for _ in range(20)]
    assert made[0] != (third.request(), third.answer())


def test_no_head_comes_twice_and_each_is_valid() -> None:
    traffic = Traffic(7)
    requests = [traffic.request() for _ in range(500)]
    heads = {request.partition(b"\r\n\r\n")[0] for request in requests}
    assert len(heads) == 500
    lengths = set()
    for request in requests:
        raw, _, body = request.partition(b"\r\n\r\n")
        head = parse_request_head(raw + b"\r\n\r\n", max_fields=100)
        assert head.content_length == len(body)
        assert len(raw.split(b"\r\n")) == 13
        lengths.add(len(body))
    assert 40 <= min(lengths) < 60 and 280 < max(lengths) <= 300
    assert len({head.partition(b"Bearer ")[2][:48] for head in heads}) > 250


def test_answers_vary_in_length_and_date() -> None:
    traffic = Traffic(7)
    answers = [traffic.answer() for _ in range(200)]
    for answer in answers:
        raw, _, body = answer.partition(b"\r\n\r\n")
        assert parse_response_head(raw + b"\r\n\r\n", max_fields=100).content_length == len(body)
    assert len({len(answer) for answer in answers}) > 40
    assert len({answer.partition(b"Date: ")[2][:29] for answer in answers}) == 5
