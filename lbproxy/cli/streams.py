"""Standard input, output and error, whatever a supervisor left of them.

A process may be started with some of the descriptors 0 to 2 closed. Whatever is opened next gets such a number: a
client would then read what is meant for a log, and libuv ends the process (SIGABRT) when it closes one of the three. So
closed ones are filled with /dev/null before anything else is opened.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

NAMES = ("stdin", "stdout", "stderr")
closed: list[str] = []  # those that this process was started without


class OutputError(Exception):
    """Standard output takes no more. The text says why."""


def reserve() -> None:
    """Fill the closed ones of the descriptors 0 to 2. Also lets text of any kind be printed."""
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given out, and those below this one are taken.
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            closed.append(name)
        if getattr(sys, name) is None:
            # Closed when the interpreter began. `__stdout__` too: it says what the process was given.
            made = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name or a config may hold what the terminal's encoding has no letter for.
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """One line, or several, to stdout. Raises OutputError, and BrokenPipeError where the reader has left."""
    write(text + "\n")


def write(text: str) -> None:
    """Text to stdout as it is. Raises like `say`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from None


def complain(text: object) -> None:
    """One line to stderr. If that takes nothing there is nobody left to tell."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def discard_output() -> None:
    """What stdout still holds goes nowhere: the interpreter would try once more at its exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
