"""The memo may only ever give what a full parse would have given."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.dataplane.head_memo import MAX_EXTRA, HeadMemo
from lbproxy.dataplane.prepare import Prepared
from lbproxy.dataplane.runtime import RouteRuntime
from lbproxy.domain.retry import RetryPolicy
from lbproxy.protocol.http1 import HeadError, parse_request_head
from lbproxy.protocol.message import join_fields
from lbproxy.telemetry.slots import TRAFFIC, Slots

ROUTE = RouteRuntime(None, Slots().allocate(TRAFFIC), RetryPolicy(), None)


def parse(raw: bytes) -> Prepared:
    head = parse_request_head(raw, max_fields=100)
    prepared = Prepared(head, ROUTE)
    prepared.forward = join_fields(head.fields)
    return prepared


def head(*lines: str, line: str = "POST /predict HTTP/1.1") -> bytes:
    return "\r\n".join((line, *lines, "", "")).encode("latin-1")


USUAL = ("Host: a", "Accept: */*", "Content-Length: 3")


def taught(memo: HeadMemo, *lines: str) -> None:
    """Show heads that differ in one field until the memo knows what repeats."""
    for number in range(6):
        raw = head(*lines, f"X-Trace: {number}")
        memo.learn(raw, parse(raw), parse)


def test_a_repeated_head_is_kept_the_second_time() -> None:
    memo = HeadMemo(takes_extra=False)
    raw = head(*USUAL)
    memo.learn(raw, parse(raw), parse)
    assert raw not in memo.heads
    memo.learn(raw, parse(raw), parse)
    assert raw in memo.heads


def test_a_new_trace_id_is_added_to_a_known_head() -> None:
    memo = HeadMemo(takes_extra=True)
    taught(memo, *USUAL)
    found = memo.find(head(*USUAL, "X-Trace:   new "), 100)
    assert found is not None
    prepared, extra = found
    assert extra == b"X-Trace: new\r\n"
    assert prepared.head.content_length == 3
    assert prepared.forward == b"Accept: */*\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        (*USUAL, "Content-Length: 4"),
        (*USUAL, "Transfer-Encoding: chunked"),
        (*USUAL, "Host: b"),
        (*USUAL, "Connection: close"),
        (*USUAL, "Expect: 100-continue"),
        (*USUAL, "Upgrade: websocket"),
        (*USUAL, "X-Forwarded-For: 1.2.3.4"),
        (*USUAL, "X_Forwarded_For: 1.2.3.4"),
        (*USUAL, "X-Client-Cert-Subject: me"),
        (*USUAL, "Accept: text/html"),  # the order of equal names has meaning
        (*USUAL, " folded: x"),
        (*USUAL, "bad name: x"),
        (*USUAL, "X-Trace : x"),
        (*USUAL, "X-Trace: \x01"),
        (*USUAL, "X-Trace: a\rb"),
        (*USUAL, "X-Trace: a\nb"),
        (*USUAL, "X-Trace"),
        (*USUAL, *(f"X-{number}: x" for number in range(MAX_EXTRA + 1))),
        ("Host: a", "Accept: */*"),
    ],
)
def test_whatever_needs_a_decision_goes_to_the_parser(lines: tuple[str, ...]) -> None:
    memo = HeadMemo(takes_extra=True)
    taught(memo, *USUAL)
    assert memo.find(head(*lines), 100) is None


def test_a_head_that_nominates_fields_takes_none() -> None:
    memo = HeadMemo(takes_extra=True)
    taught(memo, *USUAL, "Connection: x-trace")
    assert memo.find(head(*USUAL, "Connection: x-trace", "X-Trace: secret"), 100) is None


def test_the_bound_on_fields_counts_the_added_ones() -> None:
    memo = HeadMemo(takes_extra=True)
    taught(memo, *USUAL)
    assert memo.find(head(*USUAL, "X-Trace: 1"), 3) is None


def test_nothing_is_set_aside_where_the_config_reads_fields() -> None:
    memo = HeadMemo(takes_extra=False)
    taught(memo, *USUAL)
    assert memo.find(head(*USUAL, "X-Trace: 9"), 100) is None


def test_heads_without_a_common_part_never_break_a_request() -> None:
    """A base that would not be a request of its own (no Host repeats) must not be prepared."""
    memo = HeadMemo(takes_extra=True)
    for number in range(5):
        raw = head(f"Host: h{number}", "Accept: */*", line="GET / HTTP/1.1")
        memo.learn(raw, parse(raw), parse)
    assert not memo.heads


names = st.sampled_from(["Host", "Accept", "X-A", "X-B", "Content-Length", "Connection", "Via", "x_y", "Cookie"])
values = st.sampled_from(["a", "3", "close", "x-a", "b, c", ""])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.tuples(names, values), max_size=5), min_size=1, max_size=12))
def test_the_memo_agrees_with_the_parser(heads: list[list[tuple[str, str]]]) -> None:
    memo = HeadMemo(takes_extra=True)
    for fields in heads * 3:
        raw = head("Host: a", *(f"{name}: {value}" for name, value in fields))
        found = memo.find(raw, 100)
        try:
            parsed = parse(raw)
        except HeadError:
            assert found is None and raw not in memo.heads
            continue
        if found is not None:
            prepared, extra = found
            seen = prepared.head
            assert sorted((prepared.forward + extra).splitlines()) == sorted(parsed.forward.splitlines())
            assert (seen.content_length, seen.chunked, seen.keep_alive, seen.host, seen.via) == (
                parsed.head.content_length,
                parsed.head.chunked,
                parsed.head.keep_alive,
                parsed.head.host,
                parsed.head.via,
            )
        memo.learn(raw, parsed, parse)
