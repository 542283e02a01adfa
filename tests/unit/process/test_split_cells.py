"""Where shares stand: the same place before and after a reload, and none for what is no more."""

from __future__ import annotations

from lbproxy.config.http_rules import Route
from lbproxy.process.split_cells import SplitCells, split_name


def route(**more: object) -> Route:
    return Route.model_validate({"split": {"a": 1, "b": 1}, **more})


def test_a_split_is_known_by_its_route_and_its_pools() -> None:
    assert split_name("web", route(name="chat", match={"path": "/x"})) == ("web", "chat", "a", "b")
    assert split_name("web", route(match={"path_prefix": "/x"})) == ("web", "path_prefix /x", "a", "b")
    assert split_name("web", route()) == ("web", "any request", "a", "b")
    other = Route.model_validate({"split": {"by": "path", "pools": {"a": 9, "b": 1}}})
    assert split_name("web", other) == split_name("web", route()), "shares and keys may be others"


def test_the_same_name_has_the_same_cells_until_it_is_no_more() -> None:
    cells = SplitCells(None)
    mine, first = cells.find(("web", "x", "a"))
    mine[first] = 7
    other, _ = cells.find(("web", "y", "a"))
    assert other is not mine and other[0] == 0
    cells.keep({("web", "x", "a")})
    again, _ = cells.find(("web", "x", "a"))
    assert again is mine
    cells.keep(set())
    anew, _ = cells.find(("web", "x", "a"))
    assert anew[0] == 0
