"""Tests that hardly fail, found in their code: each rule is a function from a module's tree to complaints."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.rules import walk

# Calls that check something by themselves: they raise when what they wait for, or compare, is not so.
CHECKING_PREFIXES = ("assert_", "check_", "expect_", "wait_", "differ")
CHECKING_NAMES = (
    "raises",  # pytest's
    "warns",
    "fail",
    "try_request",  # raises if lbproxy and h11 understand a request differently; its answer says what both do
)
_LISTINGS = ("glob", "rglob", "iterdir", "walk", "listdir", "scandir")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _called(node: ast.Call) -> str:
    """The last part of the name that a call calls; empty if it has none."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _alternatives(test: ast.expr) -> bool:
    """`a or b`, also as what all() or any() asks of each item."""
    if isinstance(test, ast.BoolOp):
        return isinstance(test.op, ast.Or) or any(_alternatives(value) for value in test.values)
    if isinstance(test, ast.Call) and _called(test) in ("all", "any") and test.args:
        asked = test.args[0]
        return isinstance(asked, ast.GeneratorExp | ast.ListComp) and _alternatives(asked.elt)
    return False


def either_or(tree: ast.AST) -> list[tuple[int, str]]:
    """Asserts that two different outcomes satisfy, each with the line and the condition."""
    return [
        (node.lineno, ast.unparse(node.test))
        for node in walk(tree)
        if isinstance(node, ast.Assert) and _alternatives(node.test)
    ]


def constant(tree: ast.AST) -> list[int]:
    """Asserts of something that is true whatever happens: a constant, or a tuple that was meant as a message.

    `assert False` is none of them: it says that the line is not reached.
    """
    found = []
    for node in walk(tree):
        if isinstance(node, ast.Assert):
            test = node.test
            is_true = isinstance(test, ast.Constant) and bool(test.value)
            is_filled = isinstance(test, ast.Tuple | ast.List | ast.Set) and bool(test.elts)
            if is_true or is_filled or isinstance(test, ast.JoinedStr | ast.Lambda | ast.GeneratorExp):
                found.append(node.lineno)
    return found


def functions(tree: ast.Module) -> Iterator[Function]:
    """Test functions of a module and of its classes."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in inside:
            if isinstance(function, Function) and function.name.startswith("test"):
                yield function


def _checkers(tree: ast.Module) -> set[str]:
    """Functions of the module itself that check something, be it by calling one another."""
    bodies = {node.name: node for node in walk(tree) if isinstance(node, Function)}
    found: set[str] = set()
    while True:
        more = {name for name, node in bodies.items() if name not in found and _checks(node, found)}
        if not more:
            return found
        found |= more


def _checks(function: ast.AST, helpers: set[str]) -> bool:
    for node in walk(function):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = _called(node).lstrip("_")
            if name in CHECKING_NAMES or name.startswith(CHECKING_PREFIXES) or _called(node) in helpers:
                return True
    return False


def checking_nothing(tree: ast.Module) -> list[tuple[int, str]]:
    """Tests without any check, each with its line and name."""
    helpers = _checkers(tree)
    return [(test.lineno, test.name) for test in functions(tree) if not _checks(test, helpers)]


def _lists_files(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Call) and _called(part) in _LISTINGS and ast.unparse(part.func) != "ast.walk"
        for part in walk(node)
    )


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that are given a value, with the value."""
    for part in walk(node):
        if isinstance(part, ast.Assign):
            for target in part.targets:
                if isinstance(target, ast.Name):
                    yield target.id, part.value
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value:
            yield part.target.id, part.value


def _asserted_names(node: ast.AST) -> set[str]:
    """Names that an assert of this code mentions outside of a comprehension over them."""
    return {
        part.id
        for check in walk(node)
        if isinstance(check, ast.Assert) and not _over_items(check.test)
        for part in walk(check.test)
        if isinstance(part, ast.Name)
    }


def _over_items(test: ast.expr) -> bool:
    """all(...) says nothing about how many items there are."""
    return isinstance(test, ast.Call) and _called(test) == "all"


def maybe_empty(tree: ast.Module) -> list[int]:
    """Checks in a loop over files (or a test for each file) where nothing says that there is a file.

    A folder that is not there lists nothing, and the test passes.
    """
    shared = dict(_assigned(ast.Module([node for node in tree.body if not isinstance(node, Function)], [])))
    module_asserts = _asserted_names(
        ast.Module([node for node in tree.body if isinstance(node, ast.Assert)], [])
    ) | set().union(*(_asserted_names(test) for test in functions(tree)))
    found = []
    for test in functions(tree):
        local = dict(_assigned(test))
        asserted = _asserted_names(test)

        def is_unsure(items: ast.expr, local: dict[str, ast.expr] = local, asserted: set[str] = asserted) -> bool:
            names = [part.id for part in walk(items) if isinstance(part, ast.Name)]
            if any(
                (name in asserted and name in local) or (name in module_asserts and name in shared) for name in names
            ):
                return False
            return _lists_files(items) or any(
                _lists_files(values[name]) for name in names for values in (local, shared) if name in values
            )

        for node in walk(test):
            if isinstance(node, ast.For | ast.AsyncFor) and _checks(node, set()) and is_unsure(node.iter):
                found.append(node.lineno)
            elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Call) and _called(node.test) == "all":
                asked = node.test.args[0]
                if isinstance(asked, ast.GeneratorExp | ast.ListComp) and is_unsure(asked.generators[0].iter):
                    found.append(node.lineno)
        for decorator in test.decorator_list:
            if not isinstance(decorator, ast.Call) or _called(decorator) != "parametrize":
                continue
            if len(decorator.args) > 1 and is_unsure(decorator.args[1]):
                found.append(test.lineno)
    return found
