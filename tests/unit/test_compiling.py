"""Compiled classes can be derived from wherever somebody does: lbproxy's own modules, and the plug-ins of users."""

from __future__ import annotations

import ast
import errno
import importlib
import inspect
import os
import pkgutil
import re
import select
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hatch_build
import lbproxy
from lbproxy import compiling
from lbproxy.address import Address
from lbproxy.domain.strategies.base import Strategy
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.protocol.field_lines import Names
from tests.support import build

ROOT = Path(__file__).parents[2]
OPEN = {"mypyc_attr(allow_interpreted_subclasses=True)", "mypyc_attr(native_class=False)"}
LEFT_TO_THE_INTERPRETER = ("NamedTuple", "TypedDict", "Enum", "IntEnum", "StrEnum")


def modules() -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(lbproxy.__path__, "lbproxy.")]
    assert len(names) > 90
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def classes_in(owner: object, module: str) -> Iterator[type]:
    for value in list(vars(owner).values()):
        if isinstance(value, type) and value.__module__ == module and value is not owner:
            yield value
            yield from classes_in(value, module)


CLASSES = sorted(
    {cls for module in modules() for cls in classes_in(module, module.__name__)},
    key=lambda cls: (cls.__module__, cls.__qualname__),
)
COMPILED = frozenset(name.removesuffix(".py").replace("/", ".") for name in hatch_build.compiled_sources())


def definitions(source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}


def may_be_derived_from(definition: ast.ClassDef) -> bool:
    return not OPEN.isdisjoint(map(ast.unparse, definition.decorator_list)) or any(
        ast.unparse(base) in LEFT_TO_THE_INTERPRETER for base in definition.bases
    )


def closed_bases(cls: type) -> list[str]:
    """Compiled classes that this one, which is not compiled, derives from although they do not allow it."""
    if cls.__module__ in COMPILED:
        return []
    return [
        base.__qualname__
        for base in cls.__mro__[1:]
        if base.__module__ in COMPILED
        and not issubclass(base, BaseException)
        and not may_be_derived_from(
            definitions((ROOT / f"{base.__module__.replace('.', '/')}.py").read_text())[base.__name__]
        )
    ]


def test_no_class_derives_from_a_compiled_one_that_does_not_allow_it() -> None:
    assert len(CLASSES) > 200
    assert {f"{cls.__module__}.{cls.__qualname__}": found for cls in CLASSES if (found := closed_bases(cls))} == {}


def test_the_rule_sees_such_a_class() -> None:
    class Range(Address):
        pass

    class Mine(LeastConnections):
        pass

    class Other(Strategy):
        pass

    assert closed_bases(Range) == ["Address"]
    assert closed_bases(Mine) == closed_bases(Other) == []


def closed_bases_of_stand_ins(tree: ast.Module) -> list[str]:
    """Classes of a test that derive from a compiled one that does not allow it: they would only work uncompiled."""
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in COMPILED
        for alias in node.names
    }
    found = []
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for base in node.bases:
            module, name = imported.get(ast.unparse(base), ("", ""))
            if not module or node.name == "Range":  # which is there to be refused, below
                continue
            definition = definitions((ROOT / f"{module.replace('.', '/')}.py").read_text()).get(name)
            if definition is not None and not may_be_derived_from(definition):
                found.append(f"{node.name}({name})")
    return found


def test_stand_ins_of_tests_work_with_compiled_code_too() -> None:
    bad = ast.parse("from lbproxy.domain.pool import Pool\nclass Fake(Pool): ...")
    assert closed_bases_of_stand_ins(bad) == ["Fake(Pool)"]
    paths = [path for folder in ("unit", "support") for path in (ROOT / "tests" / folder).rglob("*.py")]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): closed_bases_of_stand_ins(ast.parse(path.read_text())) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_instances_can_be_made_of_every_class(cls: type) -> None:
    """That a class is there says nothing: the compiled base refuses only when an instance is made."""
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        return
    try:
        object.__getattribute__(cls, "__new__")(cls)
    except TypeError as error:
        assert "interpreted classes cannot inherit" not in str(error)


def test_what_is_tested_is_what_was_asked_for(pytestconfig: pytest.Config) -> None:
    """The installed lbproxy with all its compiled modules, or the sources."""
    is_installed = pytestconfig.getoption("--under-test") == "installed"
    suffixes = {Path(str(module.__file__)).suffix for module in modules() if module.__name__ in COMPILED}
    assert suffixes == {".so" if is_installed else ".py"}
    assert Path(str(lbproxy.__file__)).parent == (build.installed() if is_installed else ROOT / "lbproxy")


def test_each_word_is_a_function_in_python_and_one_in_c() -> None:
    """With as many arguments; what they do is tested where compiled modules use them."""
    source = hatch_build.WORDS.read_text()
    for name, (*types, _) in hatch_build.SIGNATURES.items():
        assert len(inspect.signature(getattr(compiling, name)).parameters) == len(types) - 1
        assert re.search(rf"[ *]lbproxy_{name}\(", source), name


def test_where_a_line_ends() -> None:
    ends = compiling.line_end
    assert ends(b"A: b\r\n", 1) == 2 * 4 + 1
    assert ends(b"A:b\r\n", 1) == 2 * 3 and ends(b"A:  b\r\n", 1) == 2 * 5 and ends(b"A: b \r\n", 1) == 2 * 5
    assert ends(b"A: \r\n", 1) == 2 * 3 and ends(b"A:\r\n", 1) == 2 * 2
    assert ends(b"A: b", 1) == ends(b"A: b\r", 1) == ends(b"A:", 1) == -1
    assert ends(b"A: b\n", 1) == ends(b"A: b\rc", 1) == ends(b"A: \x7f\r\n", 1) == -2


def test_fields_that_are_spelled_out() -> None:
    assert compiling.hpack_literal(b"\0\1a", b"xyz") == b"\0\1a\3xyz"
    assert compiling.hpack_literal(b"", b"x" * 126)[:1] == b"\x7e"
    assert compiling.hpack_literal(b"", b"x" * 127)[:2] == b"\x7f\0"
    assert compiling.hpack_literal(b"", b"x" * 1337)[:3] == b"\x7f\xba\x09"
    assert compiling.hpack_own(b"Content-Length: 7\r\nX-Request-ID: a\r\n") == b"\x0f\x0d\x017\0\x0cx-request-id\x01a"
    for other in (
        b"",
        b"age: 7\r\n",
        b"content-length:7\r\n",
        b"content-length: 7",
        b"content-length: 7\r\nage: 7\r\n",
    ):
        assert compiling.hpack_own(other) == b""


def test_cells_are_added_to() -> None:
    cells = [1, 2**40]
    compiling.add_to(cells, 1, 2**40)
    assert cells == [1, 2**41]
    for at in (-1, 2):
        with pytest.raises(IndexError):
            compiling.add_to(cells, at, 1)


def test_a_pipe_is_read_written_and_looked_at() -> None:
    reading, writing = os.pipe()
    try:
        assert not compiling.has_news(reading)
        assert compiling.write_now(writing, b"abc") == 3
        assert compiling.has_news(reading) and compiling.read_now(reading, 9) == b"abc"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_name_is_found_by_its_place_in_the_table() -> None:
    names = Names({b"host": 1, b"content-length": 2})
    raw = b"Accept: a\r\nContent-Type: b\r\nHost: c\r\n"
    at = raw.index(b"Host")
    number = compiling.spelling_at(raw, at, names.table)
    assert compiling.passed(raw, 0, names.table) == at << 24 | 2 << 12 | number
    assert compiling.passed(raw, at, names.table) == at << 24 | number
    assert number > 0 and compiling.spelling_at(raw, at + 1, names.table) == 0
    for table in (b"", bytes(1024), bytes(1023), names.table[:1024]):
        assert compiling.spelling_at(raw, at, table) == 0 and compiling.passed(raw, 3, table) == 3 << 24


def test_lines_that_are_not_plain_or_not_whole_are_not_passed() -> None:
    table = Names({}).table
    for line in (b"Accept:a\r\n", b"Accept: \0\r\n", b"Accept: a", b"Accept: a\r", b"Accept : a\r\n", b"Acc", b""):
        assert compiling.passed(b"Age: 1\r\n" + line, 0, table) >> 12 == 8 << 12 | 1
    many = b"Age: 1\r\n" * 5000
    assert compiling.passed(many, 0, table) == 4095 * 8 << 24 | 4095 << 12


def test_what_stands_somewhere() -> None:
    assert compiling.has_at(b"abc", 1, b"bc") and compiling.has_at(b"abc", 3, b"")
    assert not any(compiling.has_at(b"abc", at, b"bc") for at in (-2, 0, 2, 4, 9))
    assert compiling.has_octet(b"abc", 1, 9, 99) and not compiling.has_octet(b"abc", 1, 2, 99)
    assert not compiling.has_octet(b"abc", 2, 1, 98) and not compiling.has_octet(b"abc", -1, 3, 99)


def test_pieces_are_put_together() -> None:
    assert (
        compiling.cut_three(b"abcdef", 0, 1, 2, 3, 4, 9) == b"acef"
        and compiling.cut_three(b"ab", 1, 0, 5, 6, 0, 0) == b""
    )
    assert compiling.join_five(b"a", b"", b"b", b"c", b"d") == b"abcd"
    assert compiling.join_seven(b"", b"a", b"b", b"c", b"d", b"e", b"f") == b"abcdef"
    assert compiling.join_three("a", "", "\u20ac") == "a\u20ac"
    assert compiling.join_many(*"abcdefghijklmno") == "abcdefghijklmno"


def test_the_last_of_a_list_is_taken_out() -> None:
    items = ["a", "b"]
    compiling.drop_last(items)
    assert items == ["a"]
    compiling.drop_last(items)
    with pytest.raises(IndexError):
        compiling.drop_last(items)


def test_an_epoll_says_what_is_new() -> None:
    reading, writing = os.pipe()
    with select.epoll() as epoll:
        epoll.register(reading, select.EPOLLIN)
        assert compiling.events_now(epoll, epoll.fileno(), 256) == b""
        os.close(writing)
        events = compiling.events_now(epoll, epoll.fileno(), 0)
        assert compiling.word_at(events, 0) == reading | select.EPOLLHUP << 32
        assert events == compiling.packed_events([(reading, select.EPOLLHUP)])
    os.close(reading)


def test_an_epoll_waits_for_what_it_is_told() -> None:
    reading, writing = os.pipe()
    with select.epoll() as epoll:
        assert compiling.watch_now(epoll, epoll.fileno(), reading, select.EPOLLIN) == 0
        assert compiling.watch_now(epoll, epoll.fileno(), reading, select.EPOLLIN) == errno.EEXIST
        os.write(writing, b"x")
        assert epoll.poll(0) == [(reading, select.EPOLLIN)]
        assert compiling.change_now(epoll, epoll.fileno(), reading, select.EPOLLET) == 0
        assert epoll.poll(0) == []
        assert compiling.change_now(epoll, epoll.fileno(), reading, select.EPOLLIN) == 0
        assert epoll.poll(0) == [(reading, select.EPOLLIN)]
        assert compiling.change_now(epoll, epoll.fileno(), reading, 0) == 0
        assert epoll.poll(0) == []
        assert compiling.change_now(epoll, epoll.fileno(), reading, 0) == errno.ENOENT
        assert compiling.change_now(epoll, epoll.fileno(), reading, select.EPOLLIN) == errno.ENOENT
    os.close(reading)
    os.close(writing)


def test_where_a_token_ends() -> None:
    table = bytes(128 if octet == 95 else octet if 97 <= octet <= 122 else 0 for octet in range(256))
    assert compiling.token_at(b"ab: c", 0, table) == 2 << 11 | 195
    assert compiling.token_at(b"a_: c", 0, table) == 2 << 11 | 1 << 10 | 225
    assert compiling.token_at(b"<" + b"z" * 99 + b">", 1, table) == 100 << 11 | (99 * 122 & 1023)
    assert compiling.token_at(b": c", 0, table) == 0
    assert compiling.token_at(b"abc", 0, table) == compiling.token_at(b"abc", 3, table) == -1
