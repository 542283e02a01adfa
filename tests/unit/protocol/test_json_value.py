"""A value in a JSON document that arrives in pieces: the same as the standard parser finds, or none."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.protocol.json_value import LIMIT, JsonValue, unescaped

MODEL = (b"model",)
NAMES = st.sampled_from(["a", "b", "model", "", "a/b", "ü", '"', "\\", "0", "1", "\U0001f600"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(['"', "\\", '\\"', "]", "}", "{[", "\\\\"]),
)


class Pairs(list[tuple[str, Any]]):
    """An object with all of its names, doubles too."""


DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(st.tuples(NAMES, inner), max_size=5).map(lambda pairs: Pairs(pairs))
    ),
    max_leaves=20,
)


def written(value: object, *, ascii_only: bool, space: str) -> str:
    """As JSON, with doubles."""
    if isinstance(value, Pairs):
        pairs = (
            f"{json.dumps(name, ensure_ascii=ascii_only)}{space}:{space}"
            + written(item, ascii_only=ascii_only, space=space)
            for name, item in value
        )
        return "{" + space + f",{space}".join(pairs) + space + "}"
    if isinstance(value, list):
        items = (written(item, ascii_only=ascii_only, space=space) for item in value)
        return "[" + space + f"{space},".join(items) + space + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


class Raw(str):
    """A number as it is written."""


def expected(document: bytes, pointer: tuple[bytes, ...]) -> bytes:
    """By the standard parser, with the first of several equal names."""
    found = json.loads(document, object_pairs_hook=lambda pairs: Pairs(pairs), parse_int=Raw, parse_float=Raw)
    for name in pointer:
        if isinstance(found, Pairs):
            found = next((item for key, item in found if key.encode("utf-8", "surrogatepass") == name), None)
        elif isinstance(found, list) and name.isdigit() and (name == b"0" or not name.startswith(b"0")):
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return b""
    if isinstance(found, bool):
        return b"true" if found else b"false"
    return found.encode("utf-8", "surrogatepass") if isinstance(found, str) else b""


def found(document: bytes, pointer: tuple[bytes, ...] = MODEL, *, cuts: tuple[int, ...] = ()) -> bytes:
    search = JsonValue(pointer)
    places = [0, *sorted(min(cut, len(document)) for cut in cuts), len(document)]
    for start, end in itertools.pairwise(places):
        if search.feed(document[start:end], is_last=False):
            break
    search.feed(b"", is_last=True)
    assert search.is_done
    return search.value


WRITTEN = (  # a document and a pointer, how it is written, and where it is cut
    DOCUMENTS,
    st.lists(NAMES, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["", " ", "\n\t"]),
    st.lists(st.integers(0, 200), max_size=6),
)


@settings(max_examples=400)
@given(*WRITTEN)
def test_is_what_the_standard_parser_finds(
    value: object, names: list[str], ascii_only: bool, space: str, cuts: list[int]
) -> None:
    document = (space + written(value, ascii_only=ascii_only, space=space)).encode("utf-8", "surrogatepass")
    pointer = tuple(name.encode() for name in names)
    by_parser = expected(document, pointer)
    assert found(document, pointer) == by_parser
    assert found(document, pointer, cuts=tuple(cuts)) == by_parser


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text('{}[]",:\\ ntmodel01-.eu', max_size=60).map(str.encode), st.integers(0, 60))
def test_what_is_no_json_is_no_error_and_cuts_do_not_matter(document: bytes, cut: int) -> None:
    assert found(document) == found(document, cuts=(cut,)) == found(document, cuts=tuple(range(61)))


DEEP = b'{"skip": {"model": "no", "x": [1, "]}", {"y\\"": null}]}, "n": -1.5e3, "m\\u006fdel": "a\\nb\\u00fc\\\\"}'


def test_cut_at_every_byte() -> None:
    whole = expected(DEEP, MODEL)
    assert whole == "a\nbü\\".encode()
    for cut in range(len(DEEP) + 1):
        assert found(DEEP, cuts=(cut,)) == whole
    assert found(DEEP, cuts=tuple(range(len(DEEP)))) == whole


@pytest.mark.parametrize(
    ("document", "pointer", "value"),
    [
        (b'{"model": "llama"}', ("model",), b"llama"),
        (b'{"model": "llama", not JSON', ("model",), b"llama"),
        (b'{"model": "a", "model": "b"}', ("model",), b"a"),
        (b'{"a": {}, "a": {"b": 1}}', ("a", "b"), b""),
        (b'{"a": [{"b": 1}, {"b": 2}]}', ("a", "1", "b"), b"2"),
        (b'{"a": [1, 2]}', ("a", "01"), b""),
        (b'{"a": [1, 2]}', ("a", "-"), b""),
        (b'{"a": 1}', ("a", "b"), b""),
        (b'{"a": "x"}', ("a", "b"), b""),
        (b'{"model": null}', ("model",), b""),
        (b'{"model": {}}', ("model",), b""),
        (b'{"model": []}', ("model",), b""),
        (b'{"model": true}', ("model",), b"true"),
        (b'{"model": 1e5}', ("model",), b"1e5"),
        (b'{"model": NaN}', ("model",), b""),
        (b'{"model": 01}', ("model",), b""),
        (b'{"model": ""}', ("model",), b""),
        (b'{"model": 7', ("model",), b""),
        (b'{"model": "cut', ("model",), b""),
        (b'{"model": "\\q"}', ("model",), b""),
        (b'{"model": "\\ud83d\\ude00"}', ("model",), "\U0001f600".encode()),
        (b'{"model" "a"}', ("model",), b""),
        (b'{model: "a"}', ("model",), b""),
        (b'{"": {"": 3}}', ("", ""), b"3"),
        (b'["a", "b"]', ("1",), b"b"),
        (b"[]", ("0",), b""),
        (b"[1]", ("5",), b""),
        (b'"model"', ("model",), b""),
        (b"model=a", ("model",), b""),
        (b"", ("model",), b""),
        (b"\xef\xbb\xbf{}", ("model",), b""),
        (b"\x1f\x8b\x08\x00", ("model",), b""),
        (b'{"a": ]]]]}}}, "model": 1}', ("model",), b""),
    ],
)
def test_documents(document: bytes, pointer: tuple[str, ...], value: bytes) -> None:
    assert found(document, tuple(name.encode() for name in pointer)) == value


def test_stops_at_the_value_and_reads_nothing_behind_it() -> None:
    search = JsonValue(MODEL)
    assert search.feed(b'{"model": "a"', is_last=False)
    assert search.feed(b"}" * 100, is_last=False)
    assert search.value == b"a"


def test_does_not_wait_for_more_than_the_value() -> None:
    search = JsonValue((b"n",))
    assert not search.feed(b'{"n": 12', is_last=False)
    assert search.feed(b"3,", is_last=False)
    assert search.value == b"123"


def test_ends_at_the_limit_whatever_comes() -> None:
    search = JsonValue(MODEL)
    assert not search.feed(b'{"prompt": "' + b"x" * 1000, is_last=False)
    assert not search.feed(b"x" * (LIMIT - 2000), is_last=False)
    assert search.feed(b"x" * 2000 + b'", "model": "late"}', is_last=False)
    assert search.value == b""


def test_a_value_that_ends_at_the_limit_is_found() -> None:
    head, tail = b'{"prompt": "', b'", "model": "m"'
    filler = b"x" * (LIMIT - len(head) - len(tail))
    assert found(head + filler + tail + b"}") == b"m"
    assert found(head + filler + b"x" + tail + b"}") == b""


def test_deep_nesting_is_counted_and_not_followed() -> None:
    assert found(b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b', "model": "m"}') == b"m"
    assert found(b'{"a": ' + b"[" * 60_000) == b""


def test_unescaped() -> None:
    assert unescaped(b"a\\tb") == b"a\tb"
    assert unescaped(b"\\ud800") == b"\xed\xa0\x80"
    assert unescaped(b"\\u12") is None
    assert unescaped(b"\xff\\n") is None


# --- the exact search -------------------------------------------------------------------------------------------------


def exactly(document: bytes, pointer: tuple[bytes, ...] = MODEL, *, cuts: tuple[int, ...] = ()) -> bytes:
    search = JsonValue(pointer, is_exact=True)
    places = [0, *sorted(min(cut, len(document)) for cut in cuts), len(document)]
    for start, end in itertools.pairwise(places):
        if search.feed(document[start:end], is_last=False):
            break
    search.feed(b"", is_last=True)
    assert search.is_done
    return search.value


def last_of(document: bytes, pointer: tuple[bytes, ...]) -> tuple[bytes, bool]:
    """By the standard parser as it is, so with the last of several equal names; and: do names on the way come twice?"""
    found = json.loads(document, object_pairs_hook=lambda pairs: Pairs(pairs), parse_int=Raw, parse_float=Raw)
    has_doubles = False
    for name in pointer:
        if isinstance(found, Pairs):
            values = [item for key, item in found if key.encode("utf-8", "surrogatepass") == name]
            has_doubles = has_doubles or len(values) > 1
            found = values[-1] if values else None
        elif isinstance(found, list) and name.isdigit() and (name == b"0" or not name.startswith(b"0")):
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return b"", has_doubles
    if isinstance(found, bool):
        return b"true" if found else b"false", has_doubles
    return (found.encode("utf-8", "surrogatepass") if isinstance(found, str) else b""), has_doubles


@settings(max_examples=150)
@given(*WRITTEN)
def test_exactly_what_the_standard_parser_finds_or_nothing(
    value: object, names: list[str], ascii_only: bool, space: str, cuts: list[int]
) -> None:
    document = (space + written(value, ascii_only=ascii_only, space=space)).encode("utf-8", "surrogatepass")
    pointer = tuple(name.encode() for name in names)
    by_parser, has_doubles = last_of(document, pointer)
    got = exactly(document, pointer)
    assert got == exactly(document, pointer, cuts=tuple(cuts)) == exactly(document, pointer, cuts=tuple(range(300)))
    assert got in ((by_parser, b"") if has_doubles else (by_parser,))


@settings(max_examples=150)
@given(st.binary(max_size=60) | st.text('{}[]",:\\ ntmodel01-.eu', max_size=60).map(str.encode), st.integers(0, 60))
def test_exactly_nothing_is_no_error_and_cuts_do_not_matter(document: bytes, cut: int) -> None:
    assert exactly(document) == exactly(document, cuts=(cut,)) == exactly(document, cuts=tuple(range(61)))


def test_of_a_document_that_breaks_off_nothing_is_known_exactly() -> None:
    assert exactly(DEEP) == "a\nbü\\".encode()
    for end in range(len(DEEP)):
        assert exactly(DEEP[:end]) == b""


@pytest.mark.parametrize(
    ("document", "pointer", "value"),
    [
        (b'{"model": "llama"}', ("model",), b"llama"),
        (b'{"model": "llama"} and more', ("model",), b"llama"),
        (b'{"model": "llama", not JSON', ("model",), b""),
        (b'{"model": "llama",}', ("model",), b""),
        (b'{"model": "llama", "n": }', ("model",), b""),
        (b'{"model": "llama", "n": ,"m": 1}', ("model",), b""),
        (b'{"model": "llama", "n"}', ("model",), b""),
        (b'{"model": "llama"]', ("model",), b""),
        (b'{"model": "llama",\x00 "n": 1}', ("model",), b""),
        (b'{"model": "lla\nma"}', ("model",), b""),
        (b'{"model": "lla\xffma"}', ("model",), b""),
        (b'{"model": "lla\\nma"}', ("model",), b"lla\nma"),
        (b'{"model": "a", "model": "b"}', ("model",), b""),
        (b'{"model": "a", "x": {"model": "b"}}', ("model",), b"a"),
        (b'{"model": "a", "mod\\u0065l": "a"}', ("model",), b""),
        (b'{"a": {"b": 1}, "a": {"b": 1}}', ("a", "b"), b""),
        (b'{"a": {"b": 1, "b": 2}}', ("a", "b"), b""),
        (b'{"a": {"b": 1}, "b": 2}', ("a", "b"), b"1"),
        (b'{"a": [{"b": 1}, {"b": 2}], "c": [1, [2]]}', ("a", "0", "b"), b"1"),
        (b'[[1, 2], [3, 4], "x"]', ("1", "0"), b"3"),
        (b'{"a": [[1, 2], {"x": "]}"}], "d": 1}', ("a", "0", "1"), b"2"),
        (b'{"model": 7}', ("model",), b"7"),
        (b'{"model": 07}', ("model",), b""),
        (b'{"model": {}}', ("model",), b""),
    ],
)
def test_exact_documents(document: bytes, pointer: tuple[str, ...], value: bytes) -> None:
    assert exactly(document, tuple(name.encode() for name in pointer)) == value


def test_exactly_the_first_bytes_of_a_long_document_decide() -> None:
    search = JsonValue(MODEL, is_exact=True)
    assert not search.feed(b'{"model": "a", "prompt": "', is_last=False)
    assert search.value == b""  # it may come again
    assert search.feed(b"x" * LIMIT, is_last=False)
    assert search.value == b"a"
    assert exactly(b'{"model": "a", "model": "b", "prompt": "' + b"x" * LIMIT + b'"}') == b""
    assert exactly(b'{"prompt": "' + b"x" * LIMIT + b'", "model": "a"}') == b""
