"""The narrow interface between an exchange and whatever speaks to the client."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest

from lbproxy.dataplane.client import downstream
from lbproxy.dataplane.client.downstream import Downstream
from lbproxy.dataplane.exchange import body_splice, client_stream, exchange
from lbproxy.dataplane.exchange.client_stream import ClientStream


def source(module: ModuleType) -> str:
    """Its Python, also where it is compiled: that is beside it."""
    return Path(str(module.__file__)).with_name(f"{module.__name__.rpartition('.')[2]}.py").read_text()


def class_of(module: ModuleType, name: str) -> ast.ClassDef:
    [found] = [node for node in ast.parse(source(module)).body if isinstance(node, ast.ClassDef) and node.name == name]
    return found


def methods(definition: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {node.name: node for node in definition.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


INTERFACE = class_of(client_stream, "ClientStream")
OWN = methods(class_of(downstream, "Downstream"))
METHODS = {name: method for name, method in methods(INTERFACE).items() if name[0] != "_"}
ATTRIBUTES = {ast.unparse(node.target) for node in INTERFACE.body if isinstance(node, ast.AnnAssign)}


def test_the_interface_is_seen() -> None:
    assert len(METHODS) > 8 and len(ATTRIBUTES) > 3
    [slots] = [node.value for node in INTERFACE.body if isinstance(node, ast.Assign)]
    assert set(ast.literal_eval(slots)) == ATTRIBUTES
    assert issubclass(Downstream, ClientStream)


@pytest.mark.parametrize("name", METHODS)
def test_http_1_takes_and_gives_the_same_types(name: str) -> None:
    own, wanted = OWN[name], METHODS[name]
    assert ast.unparse(own.args) == ast.unparse(wanted.args)
    assert own.returns is not None and wanted.returns is not None
    assert ast.unparse(own.returns) == ast.unparse(wanted.returns)
    assert type(own) is type(wanted) and not own.decorator_list, "a method of the object, not of the class"


def test_an_exchange_asks_for_nothing_else() -> None:
    """So that another version of HTTP can stand on the client's side."""
    used = {
        node.attr
        for module in (exchange, body_splice)
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self.side", "side", "self._side")
    }
    assert used
    assert used <= set(METHODS) | ATTRIBUTES
    assert set(METHODS) <= used, "a method that nobody calls"
