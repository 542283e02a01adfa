"""Which modules import each other in a circle: every import counts, also one in a function or under TYPE_CHECKING.

An import that only the type checker sees is one all the same for who reads: neither module can be understood, moved or
tested without the other.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests.architecture.rules import walk

Graph = dict[str, set[str]]


def module_name(path: Path, root: Path) -> str:
    """`lbproxy/domain/__init__.py` is `lbproxy.domain`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, package: str, known: Collection[str]) -> Iterator[str]:
    """Which of the known modules a module of `package` imports. `from package import module` is one of the module."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                module = f"{source}.{alias.name}"
                if module in known:
                    yield module
                elif source in known:
                    yield source


def import_graph(sources: Mapping[str, str], packages: Collection[str] = ()) -> Graph:
    """Edges between the modules of `sources` (name to text). packages: those that are an `__init__.py`.

    That the package of an imported module runs before the module is no edge.
    """
    return {
        name: {
            target
            for target in imported(ast.parse(text), name if name in packages else name.rpartition(".")[0], sources)
            if target != name
        }
        for name, text in sources.items()
    }


def graph_of(folder: Path, root: Path) -> Graph:
    """Of all modules below a folder."""
    paths = sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    packages = [module_name(path, root) for path in paths if path.name == "__init__.py"]
    return import_graph({module_name(path, root): path.read_text() for path in paths}, packages)


def circles(graph: Graph) -> list[frozenset[str]]:
    """Strongly connected components of more than one module, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[frozenset[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1:
                found.append(frozenset(component))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found
