"""The narrow interface between an exchange and whatever speaks to the client."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from lbproxy.dataplane import body_splice, exchange
from lbproxy.dataplane.client_side import ClientSide
from lbproxy.dataplane.downstream import Downstream

METHODS = {name: value for name, value in vars(ClientSide).items() if inspect.isfunction(value) and name[0] != "_"}
ATTRIBUTES = set(ClientSide.__annotations__)


def test_http_1_offers_all_of_it_with_the_same_arguments() -> None:
    for name, method in METHODS.items():
        assert name in vars(Downstream), name
        own = inspect.signature(getattr(Downstream, name))
        wanted = inspect.signature(method)
        assert [(p.name, p.kind) for p in own.parameters.values()] == [
            (p.name, p.kind) for p in wanted.parameters.values()
        ], name
    assert set(ClientSide.__slots__) == ATTRIBUTES
    assert issubclass(Downstream, ClientSide)


@pytest.mark.parametrize("name", METHODS)
def test_http_1_takes_and_gives_the_same_types(name: str) -> None:
    own, wanted = getattr(Downstream, name), METHODS[name]
    assert inspect.signature(own) == inspect.signature(wanted)
    assert inspect.iscoroutinefunction(own) is inspect.iscoroutinefunction(wanted)
    assert inspect.isfunction(inspect.getattr_static(Downstream, name)), "a method of the object, not of the class"


def test_an_exchange_asks_for_nothing_else() -> None:
    """So that another version of HTTP can stand on the client's side."""
    used = {
        node.attr
        for module in (exchange, body_splice)
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self.side", "side", "self._exchange.side")
    }
    assert used
    assert used <= set(METHODS) | ATTRIBUTES
    assert set(METHODS) <= used, "a method that nobody calls"
