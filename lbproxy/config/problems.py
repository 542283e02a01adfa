"""What is wrong with a config file, as data: where, under which key, what, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]


def path_text(path: Path) -> str:
    """`("pools", "a", "servers", 0)` as users read it: `pools.a.servers[0]`; line breaks in keys as in Python."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = "".join(char if char.splitlines() == [char] else repr(char)[1:-1] for char in part)
            text += f".{shown}" if text else shown
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint. line and column count from 1; 0 means that the file has no such place (it could not be read)."""

    file: str
    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f"{place}: {self.path}: " if self.path else f"{place}: "
        return where + self.message + (f"; {self.suggestion}" if self.suggestion else "")


class Unusable(ValueError):
    """A value that is right in itself, but what it names can't be used here: a file, a module. `path` of its key."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class ConfigError(Exception):
    """The config cannot be used. `problems` holds every reason, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
