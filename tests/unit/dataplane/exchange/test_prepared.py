"""A head with a tail: made where somebody asks, and once."""

from __future__ import annotations

from lbproxy.dataplane.exchange.deadline import deadline_of_call
from lbproxy.dataplane.exchange.prepared import Cut, Prepared
from lbproxy.dataplane.exchange.template import cut_of
from lbproxy.protocol.h2.fields import make_field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.request import request_head
from lbproxy.protocol.h2.tail import Tail, tail_of
from tests.support.prepared import prepared_of

FORWARD = b"GET / HTTP/1.1\r\nHost: h\r\n"


def tail() -> Tail:
    made = tail_of(H2Head([]), [make_field(b"x", b"1"), make_field(b"grpc-timeout", b"1S")])
    assert made is not None
    return made


def front(*, is_grpc: bool = False) -> tuple[Prepared, Cut]:
    prepared = prepared_of()
    prepared.is_grpc = is_grpc
    prepared.total_s = 5.0
    prepared.forward = FORWARD + b"Via: 2 a\r\n"
    prepared.in_h2 = request_head(prepared.forward)
    cut = cut_of(prepared)
    assert cut is not None
    return prepared, cut


def test_what_there_is_without_a_tail_is_what_was_given() -> None:
    prepared, _ = front()
    assert prepared.head is prepared.meaning and prepared.tail is None
    assert prepared.forward == FORWARD + b"Via: 2 a\r\n" and prepared.forward_size == len(prepared.forward)
    assert prepared.in_h2 is not None and prepared.in_h2.lines == b"Via: 2 a\r\n"


def test_the_rest_is_made_once() -> None:
    prepared, cut = front()
    made = prepared.with_tail(cut, tail(), None)
    assert made.meaning is prepared.meaning and made.route is prepared.route
    assert not made._is_whole and not made._forward and made._in_h2 is None
    assert made.head is made.head is made.meaning and made.head.lines == b"x: 1\r\ngrpc-timeout: 1S\r\n"
    assert made.forward is made.forward
    assert made.forward == FORWARD + b"x: 1\r\ngrpc-timeout: 1S\r\nVia: 2 a\r\n"
    assert made.in_h2 is made.in_h2 and made.in_h2 is not None
    assert made.in_h2.lines == b"x: 1\r\ngrpc-timeout: 1S\r\nVia: 2 a\r\n"
    assert prepared.head.lines == b"" and prepared.forward == FORWARD + b"Via: 2 a\r\n"


def test_the_time_of_a_call_is_said_anew() -> None:
    prepared, cut = front(is_grpc=True)
    for timeout_s in (1.0, 9.0):
        made = prepared.with_tail(cut, tail(), deadline_of_call(timeout_s, ord("S")))
        assert made.deadlines is not None and made.deadlines.fields == [(b"grpc-timeout", b"S")]
        assert made.total_s == min(5.0, timeout_s)
        assert made.head.lines == b"x: 1\r\n" and made.forward == FORWARD + b"x: 1\r\nVia: 2 a\r\n"


def test_where_the_head_for_http2_is_not_known() -> None:
    prepared = prepared_of()
    prepared.forward = FORWARD
    cut = cut_of(prepared)
    assert cut is not None and cut.front is None
    made = prepared.with_tail(cut, tail(), None)
    assert made.in_h2 is None
    made.in_h2 = head = request_head(made.forward)
    assert made.in_h2 is head and head.lines == b"x: 1\r\ngrpc-timeout: 1S\r\n"
