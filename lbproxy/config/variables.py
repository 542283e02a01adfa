"""`${VAR}`, `${VAR:-default}` and `$${` inside values. A default may hold variables in turn, a few levels deep."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

MAX_DEPTH: Final = 8
MAX_LENGTH: Final = 1 << 16
"""Characters of a value after its variables are replaced."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOW: Final = "write ${NAME} or ${NAME:-default}, or $${ for ${"

Complain = Callable[[str, str], None]


def replaced(text: str, environ: Mapping[str, str], complain: Complain) -> str:
    """The text with its variables replaced. What is wrong is told to `complain(message, suggestion)`."""
    made = _Reader(text, environ, complain).read()
    if len(made) > MAX_LENGTH:
        complain(f"is longer than {MAX_LENGTH} characters once its variables are replaced", "")
        return ""
    return made


class _Reader:
    """Reads once from left to right. Its recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str, environ: Mapping[str, str], complain: Complain) -> None:
        self.text = text
        self.environ = environ
        self.complain = complain
        self.at = 0
        self.has_failed = False

    def read(self) -> str:
        return self._until_end(0, is_wanted=True)

    def _until_end(self, depth: int, *, is_wanted: bool) -> str:
        """Text up to the end, or within a default up to its `}`. is_wanted: complain of what is not set."""
        made: list[str] = []
        text = self.text
        while self.at < len(text) and not self.has_failed:
            if text.startswith("$${", self.at):
                made.append("${")
                self.at += 3
                # Its `}` belongs to the text, also within a default.
                if depth:
                    made.append(self._literal_rest())
            elif text.startswith("${", self.at):
                made.append(self._variable(depth + 1, is_wanted=is_wanted))
            elif depth and text[self.at] == "}":
                return "".join(made)
            else:
                made.append(text[self.at])
                self.at += 1
        if depth and not self.has_failed:
            self._fail(f"{self.text!r} holds ${{ without its }}")
        return "".join(made)

    def _literal_rest(self) -> str:
        end = self.text.find("}", self.at)
        if end < 0:
            return ""
        rest = self.text[self.at : end + 1]
        self.at = end + 1
        return rest

    def _variable(self, depth: int, *, is_wanted: bool) -> str:
        found = _NAME.match(self.text, self.at + 2)
        end = found.end() if found else 0
        if found is None or not self.text.startswith((":-", "}"), end):
            self._fail(f"{self.text!r} holds ${{ without a variable")
            return "?"
        if depth > MAX_DEPTH:
            self._fail(f"{self.text!r} holds more than {MAX_DEPTH} defaults inside of each other")
            return "?"
        name, has_default = found.group(), self.text[end] == ":"
        value = self.environ.get(name, "")
        if not has_default:
            self.at = end + 1
            if value or name in self.environ:
                return value
            if is_wanted and not self.has_failed:
                self.has_failed = True
                self.complain(f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}")
            return "?"
        self.at = end + 2
        default = self._until_end(depth, is_wanted=is_wanted and not value)
        self.at += 1
        return value or default

    def _fail(self, message: str) -> None:
        if not self.has_failed:
            self.complain(message, _HOW)
        self.has_failed = True
