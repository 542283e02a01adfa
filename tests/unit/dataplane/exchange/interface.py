"""Reads the ports of an exchange: what they leave open, who fills it in, and what an exchange asks for."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

from lbproxy.dataplane.exchange import attempt, attempt_books, beginning, binding, exchange, kernel_path, tunnel

Method = ast.FunctionDef | ast.AsyncFunctionDef


def source(module: ModuleType) -> str:
    """Its Python, also where it is compiled: that is beside it."""
    return Path(str(module.__file__)).with_name(f"{module.__name__.rpartition('.')[2]}.py").read_text()


def class_of(module: ModuleType, name: str) -> ast.ClassDef:
    [found] = [node for node in ast.parse(source(module)).body if isinstance(node, ast.ClassDef) and node.name == name]
    return found


def methods_of(definition: ast.ClassDef) -> dict[str, Method]:
    return {node.name: node for node in definition.body if isinstance(node, Method)}


def is_left_open(method: Method) -> bool:
    return ast.unparse(method.body[-1]) == "raise NotImplementedError"


def uses_of(*names: str) -> set[str]:
    """What the modules of an exchange read or call of an object by one of these names, or in an attribute of it."""
    return {
        node.attr
        for module in (exchange, beginning, attempt, attempt_books, binding, kernel_path, tunnel)
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] in names
    }


class Port:
    """An interface, and the parts of the class that fills it in, as (module, name)."""

    def __init__(self, interface: tuple[ModuleType, str], *parts: tuple[ModuleType, str]) -> None:
        self.definition = class_of(*interface)
        self.methods = {name: method for name, method in methods_of(self.definition).items() if name[0] != "_"}
        self.open = {name: method for name, method in self.methods.items() if is_left_open(method)}
        self.own = {name: method for part in parts for name, method in methods_of(class_of(*part)).items()}

    @property
    def called_by_itself(self) -> set[str]:
        """What its own methods read or call."""
        return {
            node.attr
            for node in ast.walk(self.definition)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
        }

    def check_same_types(self, name: str) -> None:
        """A method that is left open is filled in, and takes and gives what it should."""
        own, wanted = self.own[name], self.methods[name]
        assert ast.unparse(own.args) == ast.unparse(wanted.args)
        assert own.returns is not None and wanted.returns is not None
        assert ast.unparse(own.returns) == ast.unparse(wanted.returns)
        assert type(own) is type(wanted) and not own.decorator_list, "a method of the object, not of the class"
        assert not is_left_open(own)
