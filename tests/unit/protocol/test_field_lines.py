"""Lines of heads: what may be in one, and that one that is kept reads as it was sent."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy import errors
from lbproxy.compiling import spelling_at
from lbproxy.protocol import field_lines, request_fields, request_head, response_head
from lbproxy.protocol.field_lines import (
    MAX_NAME,
    MAX_REMEMBERED,
    FieldLines,
    HeadError,
    Names,
    fields_of,
    lines_of,
    name_of,
    single_lines,
    without,
)
from lbproxy.protocol.message import MAX_LENGTH, parse_length, token_match, value_match
from lbproxy.protocol.request_head import parse_request_head, read_request_head
from lbproxy.protocol.response_head import parse_response_head, read_response_head

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
# Two pairs of them have the same sum of octets.
KNOWN = {name: number for number, name in enumerate((b"ab", b"ba", b"host", b"shot", b"x-1"), 1)}
NAMES = Names(KNOWN)  # fixed, and takes 2 ms to make


def reader(fields: bytes, most: int = 100) -> FieldLines:
    return FieldLines(b"START\r\n" + fields + b"\r\n", 7, NAMES, errors.BAD_REQUEST, most)


def read(lines: FieldLines) -> bytes:
    while lines.next():
        lines.keep()
    return lines.lines()


def refused(lines: FieldLines) -> errors.Fault:
    with pytest.raises(HeadError) as caught:
        read(lines)
    return caught.value.fault


@pytest.mark.parametrize(
    ("line", "value", "is_plain"),
    [
        (b"ab: b", b"b", True), (b"ab: b c:\td", b"b c:\td", True), (b"ab: \xe9", b"\xe9", True),
        (b"ab: \xa0", b"\xa0", True), (b"ab:: b", b": b", False), (b"ab:b", b"b", False), (b"ab:  b", b"b", False),
        (b"ab: b ", b"b", False), (b"ab: b\t", b"b", False), (b"ab:\tb", b"b", False), (b"ab:", b"", False),
        (b"ab: ", b"", False),
    ],
)  # fmt: skip
def test_a_line_stays_if_it_reads_as_it_would_be_written(line: bytes, value: bytes, is_plain: bool) -> None:
    lines = reader(b"A: b\r\n" + line + b"\r\nC: d\r\n")
    name = lines.next()
    assert name is not None and name.lower == lines.name() == b"ab"
    assert (lines.value(), lines.is_plain) == (value, is_plain)
    lines.keep()
    assert lines.next() is None and lines.count == 3
    assert lines.lines() == b"A: b\r\nab: %b\r\nC: d\r\n" % value


def test_what_is_dropped_leaves_the_others_in_order() -> None:
    for gone in ((), (0,), (3,), (0, 3), (1, 2), (0, 1, 2, 3)):
        lines = reader(b"ab: 0\r\nba: 1\r\nA: 1\r\nhost: 2\r\nB: 2\r\nSHOT: 3\r\n")
        for number in range(4):
            name = lines.next()
            assert name is not None and KNOWN[name.lower] == number + 1 and lines.value() == b"%d" % number
            if number in gone:
                lines.drop()
            else:
                lines.keep()
        assert lines.next() is None
        left = [b"ab: 0\r\n", b"ba: 1\r\n", b"A: 1\r\n", b"host: 2\r\n", b"B: 2\r\n", b"SHOT: 3\r\n"]
        for number in reversed(gone):
            del left[(0, 1, 3, 5)[number]]
        assert lines.lines() == b"".join(left)


@pytest.mark.parametrize("name", [b"ac", b"bb", b"a", b"abc", b"hos", b"hosts", b"x-2", b"X_1", b"thos"])
def test_a_near_miss_of_a_known_name_is_another(name: bytes) -> None:
    lines = reader(name + b": 1\r\n")
    assert lines.next() is None and lines.lines() == name + b": 1\r\n"


@pytest.mark.parametrize(
    "bad",
    [b"A\x00: b", b"A B: c", b"A : b", b": b", b"A", b" A: b", b"\tA: b", b"A\xe9: b", b"A(: b", b"A\r: b", b"A: b\n",
     b"A: b\rc", b"A: b\nc", b"A: b\n\r", b"A: \x7f", b"A\r\n: b"],
)  # fmt: skip
def test_what_is_no_field_is_refused(bad: bytes) -> None:
    assert refused(reader(b"A: b\r\n" + bad + b"\r\nB: c\r\n")) is errors.BAD_REQUEST
    for start, parse in ((REQUEST, parse_request_head), (RESPONSE, parse_response_head)):
        with pytest.raises(HeadError):
            parse(start + bad + b"\r\nB: c\r\n\r\n", max_fields=9)


@pytest.mark.parametrize("behind", [b"", b"B: c\r\n\r\n", b"\r", b"\x00\n\n"])
def test_a_head_ends_with_its_first_blank_line(behind: bytes) -> None:
    lines = reader(b"A: b\r\n\r\n" + behind)
    assert lines.next() is None and lines.lines() == b"A: b\r\n" and lines.size == len(b"START\r\nA: b\r\n\r\n")
    request = read_request_head(REQUEST + b"\r\n" + behind, max_fields=9, underscores="drop", line_bytes=99)
    assert request is not None and request.size == len(REQUEST) + 2
    response = read_response_head(RESPONSE + b"\r\n" + behind, max_fields=9)
    assert response is not None and response.size == len(RESPONSE) + 2
    for start, parse in ((REQUEST, parse_request_head), (RESPONSE, parse_response_head)):
        with contextlib.suppress(HeadError) if not behind else pytest.raises(HeadError):
            parse(start + b"\r\n" + behind, max_fields=9)


def test_of_a_part_of_a_head_there_is_no_head() -> None:
    """Nor of a part that cannot become one: a HeadError says so, or nothing yet."""
    for size in range(len(REQUEST) + 2):
        with contextlib.suppress(HeadError):
            assert (
                read_request_head((REQUEST + b"\r\n")[:size], max_fields=9, underscores="drop", line_bytes=99) is None
            )
    for size in range(len(RESPONSE) + 2):
        with contextlib.suppress(HeadError):
            assert read_response_head((RESPONSE + b"\r\n")[:size], max_fields=9) is None


@pytest.mark.parametrize("more", [b"", b"x: 1\r\n" * 20])
def test_only_the_fields_of_the_head_itself_are_too_many(more: bytes) -> None:
    fields = b"a: 1\r\n" * 3 + b"no field\r\n\r\n"
    assert refused(reader(fields + more, most=9)) is errors.BAD_REQUEST
    assert refused(reader(fields + more, most=3)) is errors.HEADER_TOO_LARGE


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"A\n\n", b"A\r\nB: c", b"A\r\nB: c\r\n", b"A\r\n\r\nB", b"A\n\r\n"])
def test_what_does_not_end_with_a_blank_line_is_no_head(raw: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        with pytest.raises(HeadError):
            parse(raw, max_fields=9)


@pytest.mark.parametrize("code", range(256))
def test_only_field_octets_pass(code: int) -> None:
    odd = bytes([code])
    for name in (odd, b"A" + odd, odd + b"A", b"A" + odd + b"B"):
        lines = reader(name + b": c\r\n")
        if token_match(name):
            assert read(lines) == name + b": c\r\n"
        elif code != ord(":") or name == odd or name == odd + b"A":
            assert refused(lines) is errors.BAD_REQUEST
    lines = reader(b"A: b%bc\r\n" % odd)
    if value_match(odd):
        assert read(lines) == b"A: b%bc\r\n" % odd
    else:
        assert refused(lines) is errors.BAD_REQUEST


@pytest.mark.parametrize("place", [0, 1, 7, 14, 15, 16, 17, 30, 31, 32, 40])
def test_only_field_octets_pass_wherever_they_stand(place: int) -> None:
    """Octets are looked at many at a time, and the last ones one by one, whether something stands behind or not."""
    for code in range(256):
        value = b"v" * place + bytes([code]) + b"v" * (41 - place)
        for behind in (b"", b"A: " + b"v" * 40 + b"\r\n"):
            lines = reader(b"A: %b\r\n%b" % (value, behind))
            if value_match(bytes([code])):
                assert read(lines).endswith(value.lstrip(b" \t") + b"\r\n" + behind)
            else:
                assert refused(lines) is errors.BAD_REQUEST


@given(st.one_of(st.integers(0, 10 * MAX_LENGTH).map(str), st.text("0129 \t+_-\xb2", max_size=21)))
def test_numbers(text: str) -> None:
    lines = reader(b"ab: %b\r\n" % text.encode("latin-1"))
    lines.next()
    length = parse_length(lines.value())
    assert lines.number() == (-1 if length is None else length)


@pytest.mark.parametrize("bad", [b"", b"bad name: x\r\n", b"A: \x00\r\n"])
def test_more_fields_than_are_read(bad: bytes) -> None:
    """Whatever else is wrong with such a head, that is what is said."""
    assert refused(reader(b"A: b\r\n" * 3 + bad + b"ab: c\r\n" * 2, 4)) is errors.HEADER_TOO_LARGE
    lines = reader(b"A: b\r\n" * 4, 4)
    assert lines.next() is None and lines.count == 4


def test_lines_and_fields() -> None:
    fields = [(b"A", b"b"), (b"C", b""), (b"D", b": e: ")]
    assert lines_of(fields) == b"A: b\r\nC: \r\nD: : e: \r\n"
    assert fields_of(lines_of(fields)) == fields and fields_of(b"") == []
    assert single_lines(lines_of(fields)) == [b"A: b\r\n", b"C: \r\n", b"D: : e: \r\n"]
    assert name_of(b"A-B: c:") == b"a-b"
    assert without(b"A: b\r\na: c\r\nA-B: d\r\n", frozenset((b"a",))) == b"A-B: d\r\n"


VALUES = st.text("ab:,; \t\xe9\xa0", max_size=8).map(lambda text: text.encode("latin-1"))


@given(st.lists(st.tuples(st.sampled_from([b"A", b"B-c", b"!"]), VALUES), max_size=5))
def test_lines_that_pass_mean_what_was_sent(fields: list[tuple[bytes, bytes]]) -> None:
    """As they are, or written anew: one space before the value, and none around it that was not meant."""
    sent = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n"
    meant = [(name, value.strip(b" \t")) for name, value in fields]
    request, response = (
        parse_request_head(REQUEST + sent, max_fields=9),
        parse_response_head(RESPONSE + sent, max_fields=9),
    )
    assert request.fields == response.fields == meant
    assert request.lines == response.lines == lines_of(meant)


def test_tables_stay_small() -> None:
    for number in range(3 * MAX_REMEMBERED):
        parse_request_head(b"GET / HTTP/1.1\r\nHost: h%d\r\n\r\n" % number, max_fields=9)
        parse_response_head(b"HTTP/1.1 200 R%d\r\n\r\n" % number, max_fields=9)
        assert len(request_head._hosts._known) <= MAX_REMEMBERED and len(response_head._starts) <= MAX_REMEMBERED


def test_long_texts_are_not_remembered() -> None:
    long = b"a" * (MAX_NAME + 1)
    parse_response_head(b"HTTP/1.1 200 %b\r\n%b: v\r\nA: %b\r\n\r\n" % (long, long, long), max_fields=9)
    parse_request_head(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % long, max_fields=9)
    assert not any(
        len(text) > MAX_NAME for table in (response_head._starts, request_head._hosts._known) for text in table
    )


@pytest.mark.parametrize("line", [b"Accept", b"Connection", b"Content-Length", b"Via"])
def test_a_known_name_without_a_colon_is_no_field(line: bytes) -> None:
    parse_request_head(REQUEST + line + b": 1\r\n\r\n", max_fields=9)
    with pytest.raises(HeadError) as caught:
        parse_request_head(REQUEST + line + b"\r\n\r\n", max_fields=9)
    assert caught.value.fault is errors.BAD_REQUEST
    with pytest.raises(HeadError):
        parse_response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n", max_fields=9)


def slow(names: Names) -> Names:
    """The same table without the names that are told by whole words."""
    names.table = bytes(len(names.table))
    return names


TABLES = (
    (request_fields._RequestNames(request_fields._KINDS), slow(request_fields._RequestNames(request_fields._KINDS))),
    (Names(KNOWN | {b"content-length": 9}), slow(Names(KNOWN | {b"content-length": 9}))),
)


def spellings() -> list[bytes]:
    """Names that are told by whole words, as they are sent, and what differs from one of them in one octet."""
    names = [
        *field_lines._COMMON,
        *field_lines._RARER,
        *request_fields._KINDS,
        b"Content-Length",
        b"Host",
        b"Via",
        b"TE",
        b"X-Forwarded-For",
    ]
    found = [form for name in names for form in (name, name.lower(), name.upper(), name.title(), name.swapcase())]
    for name in names:
        found += [name[:at] + b"z" + name[at + 1 :] for at in range(len(name))]
        found += [name[:-1], name + b"z", b"z" + name, name[1:], name + b"-z", name.replace(b"-", b"_"), name * 2]
    return list(dict.fromkeys(found))


def read_all(lines: FieldLines) -> list[tuple[bytes, int, bytes, bytes, bool]]:
    found = []
    while (name := lines.next()) is not None:
        found.append((name.lower, name.kind, lines.name(), lines.value(), lines.is_plain))
        lines.drop()
    return found


@pytest.mark.parametrize(("quick", "octet_by_octet"), TABLES)
def test_a_name_means_the_same_whether_it_is_usual_or_not(quick: Names, octet_by_octet: Names) -> None:
    for name in spellings():
        for end in (b": v\r\n", b":v\r\n", b": \xe9 long enough\r\nAccept: b\r\n"):
            raw = name + end + b"\r\n"
            one, other = (FieldLines(raw, 0, names, errors.BAD_REQUEST) for names in (quick, octet_by_octet))
            assert read_all(one) == read_all(other)
            assert (one.lines(), one.size, one.count) == (other.lines(), other.size, other.count)


@pytest.mark.parametrize(("quick", "octet_by_octet"), TABLES)
def test_a_line_is_refused_whether_its_name_is_usual_or_not(quick: Names, octet_by_octet: Names) -> None:
    for name in spellings():
        for bad in (b" : v\r\n", b"\r\n", b"\0: v\r\n", b": v\n\r\n", b": \0\r\n", b";: v\r\n", b": v\rv\r\n"):
            for names in (quick, octet_by_octet):
                with pytest.raises(HeadError):
                    read_all(FieldLines(name + bad + b"\r\n", 0, names, errors.BAD_REQUEST))


@pytest.mark.parametrize("names", TABLES[0])
def test_a_line_that_is_cut_anywhere_is_not_all_there(names: Names) -> None:
    raw = b"Accept-Encoding: gzip\r\nUser-Agent: a\r\n\r\n"
    for end in range(len(raw)):
        with pytest.raises(IndexError):
            read_all(FieldLines(raw[:end], 0, names, errors.BAD_REQUEST))


def test_usual_names_are_told_by_whole_words() -> None:
    """What the tables are for: those of the requests and answers that are measured."""
    for names, sent in (
        (TABLES[0][0], (b"Host", b"User-Agent", b"Accept", b"Accept-Encoding", b"Connection", b"Authorization")),
        (
            TABLES[0][0],
            (b"Content-Type", b"content-type", b"Cookie", b"traceparent", b"X-Request-ID", b"Content-Length"),
        ),
        (response_head._NAMES, (b"Server", b"Date", b"Connection", b"Content-Type", b"Content-Length")),
    ):
        for name in sent:
            number = spelling_at(name + b": value\r\n\r\n", 0, names.table)
            assert number and names.spellings[number - 1].name.lower in (name.lower(), b"")


@pytest.mark.parametrize("n_stretches", range(7))
@pytest.mark.parametrize("odd", [None, *range(7)])
def test_what_is_kept_stands_together_however_many_pieces_it_is(n_stretches: int, odd: int | None) -> None:
    """odd: the stretch of which one line is written anew."""
    fields, left = b"host: gone\r\n", b""
    for number in range(n_stretches):
        fields += b"Accept: %d\r\nage:%sb\r\nhost: gone\r\n" % (number, b"" if number == odd else b" ")
        left += b"Accept: %d\r\nage: b\r\n" % number
    lines = reader(fields)
    while lines.next():
        lines.drop()
    assert lines.lines() == left and lines.count == 1 + 3 * n_stretches


def test_usual_lines_are_counted_as_all_others() -> None:
    fields = b"Accept: a\r\n" * 5000
    assert read(reader(fields, most=5000)) == fields
    assert refused(reader(fields, most=4999)) is errors.HEADER_TOO_LARGE
    assert refused(reader(fields, most=10)) is errors.HEADER_TOO_LARGE


def test_a_usual_value_is_the_same_object_again() -> None:
    usuals = field_lines.Usuals()
    for value in (b"a usual value", b"12345678", b"\xe9" * 30, b"v" * MAX_NAME):
        first = usuals.find(b"<" + value + b">", 1, 1 + len(value))
        again = usuals.find(value, 0, len(value))
        assert first is again and (first.value, first.text) == (value, value.decode("latin-1"))
    for value in (b"", b"short", b"v" * (MAX_NAME + 1)):
        first, again = (usuals.find(value, 0, len(value)) for _ in range(2))
        assert first is not again and first.value == again.value == value


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_a_value_is_never_taken_for_another(values: list[bytes]) -> None:
    usuals = field_lines.Usuals()
    for value in [*values, *values]:
        found = usuals.find(value, 0, len(value))
        assert (found.value, found.text) == (value, value.decode("latin-1"))


def test_usual_values_do_not_grow() -> None:
    usuals = field_lines.Usuals()
    for number in range(5000):
        usuals.find(b"value number %08d" % number, 0, 21)
    assert len(usuals._places) == field_lines._USUALS
