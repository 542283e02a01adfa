"""How to start lbproxy again: what was typed, found anew.

The program that was run may be another version by now: its script may have been replaced, or be a link that leads
elsewhere. So the script itself is run, with whatever interpreter it names today, and not the interpreter of this
process. COMMAND says what to run in its place, for whom a wrapper starts that this process can't know of.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final

COMMAND: Final = "LBPROXY_COMMAND"


def command(
    original: Sequence[str],
    script: str,
    environ: Mapping[str, str],
    is_program: Callable[[str], bool] = lambda path: os.access(path, os.X_OK),
) -> list[str]:
    """The words to run. original: sys.orig_argv. script: sys.argv[0]. Raises ValueError for a COMMAND that is no words.

    is_program: can this path be run?
    """
    words = list(original)
    at = words.index(script) if script in words[1:] and not script.startswith("-") else 0
    wanted = environ.get(COMMAND, "")
    if wanted:
        try:
            program = shlex.split(wanted)
        except ValueError as error:
            raise ValueError(f"{COMMAND}={wanted!r}: {error}") from None
        return [*program, *_arguments(words, at)]
    return words[at:] if at and is_program(script) else words


def _arguments(words: Sequence[str], at: int) -> list[str]:
    """What follows the program: its script, or the module or code that the interpreter was told to run."""
    if at:
        return list(words[at + 1 :])
    for option in ("-m", "-c"):
        if option in words:
            return list(words[words.index(option) + 2 :])
    return list(words[1:])
