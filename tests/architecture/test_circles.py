"""No module is imported, by whatever way, by what it imports itself."""

from __future__ import annotations

import functools

import pytest

from tests.architecture import circles
from tests.architecture.rules import PACKAGE, ROOT


@functools.cache
def graph() -> circles.Graph:
    return circles.graph_of(PACKAGE, ROOT)


def test_there_is_no_circle() -> None:
    found = circles.circles(graph())
    told = "modules that import each other, TYPE_CHECKING included: what both need is a module of its own"
    assert [sorted(circle) for circle in found] == [], told


def test_the_graph_has_all_modules() -> None:
    assert len(graph()) > 150 and "lbproxy.domain.lease" in graph()["lbproxy.domain.pool"]
    assert "lbproxy.errors" in graph()["lbproxy.dataplane.exchange.exchange"], "from lbproxy import errors"


A = "import p.b\n"


@pytest.mark.parametrize(
    "back",
    [
        "from p.a import x",
        "from p import a",
        "import p.a",
        "from . import a",
        "from .a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import x",
        "def f():\n    from p.a import x",
        "from p.c import y",
    ],
)
def test_every_way_to_import_closes_a_circle(back: str) -> None:
    sources = {"p": "", "p.a": A, "p.b": back, "p.c": "import p.a", "p.d": "import p.a, p.b"}
    (found,) = circles.circles(circles.import_graph(sources, ["p"]))
    assert found == ({"p.a", "p.b", "p.c"} if "p.c" in back else {"p.a", "p.b"})


def test_an_import_of_a_package_is_one_of_its_init() -> None:
    sources = {"p": "", "p.q": "from p.q.a import x", "p.q.a": "from p.q import y", "p.q.b": "from p.q.a import x"}
    assert circles.circles(circles.import_graph(sources, ["p", "p.q"])) == [{"p.q", "p.q.a"}]
    sources["p.q.a"] = "import os"
    assert circles.circles(circles.import_graph(sources, ["p", "p.q"])) == []


def test_two_circles_are_two() -> None:
    pairs = {"a": "import b", "b": "import a, c", "c": "import d", "d": "import c", "e": "import a, d"}
    assert sorted(map(sorted, circles.circles(circles.import_graph(pairs)))) == [["a", "b"], ["c", "d"]]
