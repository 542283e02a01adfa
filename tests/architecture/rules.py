"""The house rules that a machine can check, each as a function from code to complaints."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "lbproxy"
SIZE_LIMIT_LINES = 600
_FIELDS: dict[type, tuple[str, ...]] = {}
SIZE_REASON = f"longer than {SIZE_LIMIT_LINES} lines"


def modules(folder: Path) -> list[Path]:
    """Python files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def walk(tree: ast.AST) -> list[ast.AST]:
    """`ast.walk` in a third of its time, and without what only says whether a name is read or written."""
    found = [tree]
    for node in found:
        fields = _FIELDS.get(type(node))
        if fields is None:
            fields = _FIELDS[type(node)] = tuple(name for name in node._fields if name != "ctx")
        for name in fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return found


def places_of_tests(module: Path) -> list[Path]:
    """Where the tests of a module (relative to the repository) may be, relative to the repository.

    Modules that do nothing without sockets or processes are tested by scenarios.
    """
    inside = module.relative_to("lbproxy")
    name = f"test_{module.stem.lstrip('_')}.py"
    places = [Path("tests/unit") / inside.parent / name]
    if inside.parts[0] in ("dataplane", "control", "doctor", "process", "testing"):
        places.append(Path("tests/scenarios") / inside.parent / name)
    return places


def shadows_stdlib(module: Path) -> bool:
    """A module `queue.py` is legal inside a package, but makes `import queue` puzzling to read."""
    return module.stem in sys.stdlib_module_names and not module.stem.startswith("__")


def endless_loops(tree: ast.AST) -> list[int]:
    """Lines with `while True` (or another constant)."""
    return [
        node.lineno
        for node in walk(tree)
        if isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value
    ]


def bare_excepts(tree: ast.AST) -> list[int]:
    return [node.lineno for node in walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]


def ownerless_tasks(tree: ast.AST) -> list[int]:
    """Lines that start a task by whatever name: asyncio.create_task, loop.create_task, ensure_future."""
    return [
        node.lineno
        for node in walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id)
        in ("create_task", "ensure_future")
        # A TaskGroup owns its tasks.
        and not (isinstance(node.func, ast.Attribute) and "group" in ast.unparse(node.func.value))
    ]


def reused_error_names(tree: ast.AST) -> list[int]:
    """Functions whose `except ... as name` handlers use one name for different types: compiled, it has the first's."""
    found = []
    for function in walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            types: dict[str, set[str]] = {}
            for node in walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                    types.setdefault(node.name, set()).add(ast.unparse(node.type))
            found += [function.lineno for kinds in types.values() if len(kinds) > 1]
    return found


def looked_up_constants(tree: ast.Module) -> list[int]:
    """Constants of a module, in capitals, that are not Final: compiled code looks them up by name at each use.

    Or that are a tuple without a type: compiled, that is no object but its items, put together at each use.
    """
    found = []
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Tuple):
            target = target.elts[0]
        if not isinstance(target, ast.Name) or not target.id.isupper() or len(target.id) == 1:
            continue
        annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        is_bare = annotation == "Final" and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple)
        if is_bare or not annotation.startswith(("Final", "TypeAlias")):
            found.append(node.lineno)
    return found


def is_too_long(text: str) -> bool:
    """Over the limit without a word in the preface about why."""
    preface = " ".join((ast.get_docstring(ast.parse(text)) or "").split()).lower()
    return len(text.splitlines()) > SIZE_LIMIT_LINES and SIZE_REASON not in preface


def blocking_names(tree: ast.AST) -> list[tuple[int, str]]:
    """Calls that a unit test must not contain: sleeps, sockets, sub-processes."""
    forbidden = (
        "time.sleep",
        "socket.socket",
        "socket.create_connection",
        "socket.socketpair",
        "asyncio.open_connection",
    )
    return [
        (node.lineno, name)
        for node in walk(tree)
        if isinstance(node, ast.Call)
        and ((name := ast.unparse(node.func)) in forbidden or name.startswith("subprocess."))
    ]


# Names of pages and numbers of their rows that no reader of this tree has: a comment gives the reason itself.
_POINTERS = re.compile(
    r"semantics,? section|\bas in semantics\b|\breliability,? (?:rows?|rule|section|[A-Z]\d)"
    r"|\b(?:decisions|contract|semantics)\.md|\b[Rr]ows? \d+|\btest_rows?_\d|\b(?:torture|threat) list"
    r"|\b[Rr]ule R\d|# R\d+\b|\(R\d+\)|\((?:[TMBCD]\d+(?:, )?)+\)"
    r"|^[\w-]+ \| (?:[ABCDMT]\d+|rule \d+) \|",
    re.MULTILINE,
)


def pointers_outside(text: str) -> list[int]:
    """Lines that point to a page outside of the tree."""
    return sorted({text.count("\n", 0, found.start()) + 1 for found in _POINTERS.finditer(text)})


def complaints(paths: Iterable[Path], rule: str, lines_of: object, mention: str = "") -> list[str]:
    """`path:line: rule` for every line that a rule names. mention: an expression for what stands in each such file: to
    take apart all of them for every rule took most of the rules' time."""
    assert callable(lines_of)
    asked = [path for path in paths if re.search(mention, path.read_text())]
    return [f"{path.relative_to(ROOT)}:{line}: {rule}" for path in asked for line in lines_of(parsed(path))]
