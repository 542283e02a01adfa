"""Words of the compiler in C say what they say in Python, of any octets, and read none that are not there."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

import hatch_build
from lbproxy import compiling
from lbproxy.protocol.h2.huffman import _TABLES

WORDS = ("literal_at", "spliced", "timeout_line", "length_line", "huffman_text")
C_TYPES = {"int64": "int64_t", "bytes": "PyObject *"}
PYTHON_TYPES: dict[str, Any] = {"int64": ctypes.c_int64, "bytes": ctypes.py_object}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., object]]:
    """Those of compiling.h, as a library."""
    folder = tmp_path_factory.mktemp("words")
    source, made = folder / "words.c", folder / "words.so"
    lines = [f'#include "{hatch_build.WORDS}"']
    for name in WORDS:
        *taken, given = hatch_build.SIGNATURES[name][:-1]
        names = [f"a{number}" for number in range(len(taken))]
        typed = ", ".join([f"{C_TYPES[str(kind)]} {one}" for kind, one in zip(taken, names, strict=True)])
        lines.append(f"{C_TYPES[str(given)]} {name}({typed}) {{ return lbproxy_{name}({', '.join(names)}); }}")
    source.write_text("\n".join(lines))
    include = sysconfig.get_path("include")
    command = ["cc", "-shared", "-fPIC", "-O2", "-w", f"-I{include}", "-o", str(made), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    library = ctypes.PyDLL(str(made))
    found: dict[str, Callable[..., object]] = {}
    for name in WORDS:
        *taken, given = hatch_build.SIGNATURES[name][:-1]
        function = library[name]
        function.argtypes = [PYTHON_TYPES[str(kind)] for kind in taken]
        function.restype = PYTHON_TYPES[str(given)]
        found[name] = function
    return found


Words = dict[str, Callable[..., object]]


def test_fields_that_are_spelled_out(words: Words) -> None:
    """Any octets, most of them nearly a field, at any place and cut anywhere."""
    draw = random.Random(5)
    n_good = 0
    for _ in range(100_000):
        name = b"n" * draw.choice((0, 1, 2, 11, 63, 64, 65, 127, 128))
        size = draw.choice((0, 1, 2, 15, 16, 17, 126, 127, 128, 253, 254, 255))
        value = bytearray(draw.choice((b"v", b"\xff", b"\t", b" ")) * size)
        if value and draw.random() < 0.5:
            value[0] = value[-1] = 0x76
        if value and draw.random() < 0.3:
            value[draw.randrange(size)] = draw.choice((0, 9, 10, 13, 31, 32, 126, 127, 128, 255))
        block = bytearray(compiling.hpack_literal(b"\0%c%b" % (len(name), name), bytes(value)))
        if draw.random() < 0.3:
            block[draw.randrange(len(block))] = draw.choice((0, 1, 15, 16, 63, 64, 126, 127, 128, 255))
        before = draw.choice((0, 0, 1, 7))
        block[:0] = b"b" * before
        block += draw.choice((b"", b"", b"\0", b"x", b"\x82", b"\0\1a\1b"))
        octets = bytes(block[: draw.randrange(len(block) + 1)] if draw.random() < 0.2 else block)
        at = draw.choice((before, before, before, before, -1, before + 1, len(octets), len(octets) - 1, 1 << 40))
        found = compiling.literal_at(octets, at)
        assert words["literal_at"](octets, at) == found, (octets, at)
        n_good += found >= 0
    assert n_good > 10_000


def test_what_a_field_is_cut_into() -> None:
    block = b"xx\0\3abc\2de\0"
    found = compiling.literal_at(block, 2)
    start, n_value, n_name = found >> 16, found >> 8 & 0xFF, found & 0xFF
    assert (block[start : start + n_value], block[4 : 4 + n_name]) == (b"de", b"abc")


def test_octets_without_those_between(words: Words) -> None:
    draw = random.Random(6)
    for _ in range(20_000):
        pieces = [
            bytes(draw.choices(range(256), k=draw.choice((0, 1, 3, 4, 7, 8, 15, 16, 31, 33, 200)))) for _ in range(5)
        ]
        first, octets, *others = pieces
        places = sorted(draw.choice((0, 1, 8, len(octets), len(octets) + 5, draw.randrange(250))) for _ in range(3))
        if draw.random() < 0.2:
            draw.shuffle(places)
        start, skip_from, skip_to = places
        expected = compiling.spliced(first, octets, start, skip_from, skip_to, *others)
        assert words["spliced"](first, octets, start, skip_from, skip_to, *others) == expected
        if start <= skip_from <= skip_to:
            assert expected == first + octets[start:skip_from] + octets[skip_to:] + b"".join(others)


@pytest.mark.parametrize("number", [0, 1, 9, 10, 99_999_999, -1, -(1 << 63), (1 << 63) - 1])
def test_lines_with_a_number(words: Words, number: int) -> None:
    assert words["length_line"](number) == compiling.length_line(number) == b"Content-Length: %d\r\n" % number
    for behind in (b"", b"X-Request-ID: 1\r\n", b"x" * 1000):
        line = compiling.timeout_line(number, behind)
        assert words["timeout_line"](number, behind) == line == b"grpc-timeout: %dm\r\n%b" % (number, behind)


def said(function: Callable[..., object], *args: object) -> object:
    """What it gives, or what it raises."""
    try:
        return function(*args)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def test_codes_of_huffman(words: Words) -> None:
    """Most of them right, as text is; some of any octets, which mostly are not."""
    draw = random.Random(7)
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    n_good = 0
    for _ in range(20_000):
        size = draw.choice((0, 1, 2, 7, 30, 255, 256, 257, 300))
        if draw.random() < 0.8:
            octets = b"0123456789abcdef-/" if draw.random() < 0.5 else bytes(range(256))
            code = encoder.encode(bytes(draw.choices(octets, k=size)))
        else:
            code = draw.randbytes(size)
        if code and draw.random() < 0.2:
            code = code[:-1] + bytes([draw.choice((0, 1, 0x7F, 0xFE, 0xFF))])
        before, behind = draw.randbytes(draw.randrange(3)), draw.randbytes(draw.randrange(3))
        data, start, end = before + code + behind, len(before), len(before) + len(code)
        if draw.random() < 0.1:
            start, end = draw.choice(((end, start), (start, end + 9), (len(data) + 3, len(data) + 9), (start, start)))
        found = said(compiling.huffman_text, data, start, end, _TABLES)
        assert said(words["huffman_text"], data, start, end, _TABLES) == found
        n_good += isinstance(found, bytes)
    assert n_good > 10_000


def test_any_tables_are_safe(words: Words) -> None:
    draw = random.Random(8)
    for _ in range(200):
        tables = bytes(draw.choices(b"\0\0\0\1\1\1\2", k=12_288)) + draw.randbytes(256)
        tables = draw.randbytes(4096) + tables[4096:8192] + draw.randbytes(4096) + tables[12_288:]
        data = draw.randbytes(draw.choice((0, 1, 2, 3, 300)))
        found = said(compiling.huffman_text, data, 0, len(data), tables)
        assert said(words["huffman_text"], data, 0, len(data), tables) == found
    assert "ValueError" in str(said(words["huffman_text"], b"a", 0, 1, bytes(100)))
