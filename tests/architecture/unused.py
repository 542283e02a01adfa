"""What lbproxy defines and nothing in lbproxy uses: functions, classes, methods, attributes, constants.

Names are compared, not meanings: whatever is called like something that is used counts as used, but for `self.name`,
which is one of its own class or of a relative. So what is found here is really unused, and not all that is unused is
found. A test is no use: what only tests call is dead.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.architecture.rules import walk

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Decorators that do not hand a function to somebody who calls it.
_PLAIN = ("property", "cached_property", "functools.cached_property", "staticmethod", "classmethod", "cache")


@dataclass(frozen=True)
class Definition:
    """owner: the class, "" for what stands in the module."""

    name: str
    owner: str
    line: int

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass
class Uses:
    """names, attributes: read or called anywhere. own: by a class, as `self.name`. texts: constants that are a name."""

    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    own: dict[str, set[str]] = field(default_factory=dict)
    bases: dict[str, set[str]] = field(default_factory=dict)

    @functools.cached_property
    def _near(self) -> dict[str, set[str]]:
        """What a class inherits from, and what inherits from it; when all is noted."""
        near: dict[str, set[str]] = {name: {*bases} for name, bases in self.bases.items()}
        for name, bases in self.bases.items():
            for base in bases:
                near.setdefault(base, set()).add(name)
        return near

    def relatives(self, owner: str) -> set[str]:
        """A class, and all that inherit from what it inherits from."""
        found, todo = {owner}, [owner]
        while todo:
            name = todo.pop()
            near = self._near.get(name, set())
            todo += near - found
            found |= near
        return found

    def has(self, item: Definition) -> bool:
        if item.name in self.attributes or (not item.owner and item.name in self.names):
            return True
        return any(item.name in self.own.get(name, ()) for name in self.relatives(item.owner))


def _assigned(node: ast.AST) -> Iterator[ast.expr]:
    """The targets of an assignment, one by one."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from target.elts if isinstance(target, ast.Tuple) else [target]


def _is_handed_on(node: Function | ast.ClassDef) -> bool:
    names = (ast.unparse(item) for item in node.decorator_list)
    return any(name not in _PLAIN and not name.startswith(("mypyc_attr", "dataclass")) for name in names)


def _defined(body: list[ast.stmt], owner: str) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not _is_handed_on(node):
            yield Definition(node.name, owner, node.lineno)
        for target in _assigned(node):
            if isinstance(target, ast.Name):
                yield Definition(target.id, owner, target.lineno)


def _attributes(cls: ast.ClassDef) -> Iterator[Definition]:
    """What its methods give to self."""
    for node in walk(cls):
        for target in _assigned(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                yield Definition(target.attr, cls.name, target.lineno)


def definitions(tree: ast.Module) -> list[Definition]:
    """What a module offers, but for names that begin and end with two underscores."""
    found = list(_defined(tree.body, ""))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = {item.name: item for item in reversed([*_defined(node.body, node.name), *_attributes(node)])}
            found += own.values()
    return [item for item in found if item.name.strip("_") and not item.name.startswith("__")]


def note_uses(tree: ast.Module, found: Uses) -> None:
    """`__slots__`, `x += 1` and docstrings are no use."""
    for node in tree.body:
        owner = node.name if isinstance(node, ast.ClassDef) else ""
        if isinstance(node, ast.ClassDef):
            found.bases.setdefault(owner, set()).update(ast.unparse(base).rpartition(".")[2] for base in node.bases)
        slots: set[ast.AST] = set()
        for item in walk(node):
            if isinstance(item, ast.Assign) and any(ast.unparse(target) == "__slots__" for target in item.targets):
                slots.update(walk(item.value))
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load):
                found.names.add(item.id)
            elif isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load):
                is_own = owner and isinstance(item.value, ast.Name) and item.value.id == "self"
                (found.own.setdefault(owner, set()) if is_own else found.attributes).add(item.attr)
            elif isinstance(item, ast.Constant) and isinstance(item.value, str) and item not in slots:
                parts = item.value.split(".")
                found.attributes.update(parts if all(part.isidentifier() for part in parts) else ())


def unused(sources: Mapping[str, str]) -> list[tuple[str, Definition]]:
    """(path, definition) of all that no module uses."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    found = Uses()
    for tree in trees.values():
        note_uses(tree, found)
    return [(path, item) for path, tree in trees.items() for item in definitions(tree) if not found.has(item)]
