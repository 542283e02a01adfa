"""`lbproxy key new`: makes an API key, and the line of the file of keys that knows it."""

from __future__ import annotations

import argparse
from pathlib import Path

from lbproxy.api_keys import BadKeys, KeyRing, hash_of, name_problem, new_key, read_keys
from lbproxy.cli import streams
from lbproxy.cli.common import OK, UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="new", choices=["new"], help="`new`: make a key")
    parser.add_argument("name", metavar="NAME", help="whose key it is: what logs, limits and routes call its client")
    parser.add_argument(
        "--file", metavar="FILE", help="add the key's hash to this file (api_keys.file), which is made if need be"
    )
    parser.add_argument(
        "--another", action="store_true", help="the name has a key in FILE already, and is to have one more"
    )


def key(args: argparse.Namespace) -> int:
    """The key goes to standard output, and is nowhere else; what else is said goes to standard error."""
    if problem := name_problem(args.name):
        raise UsageError(problem)
    secret = new_key()
    line = f"{args.name} {hash_of(secret)}\n"
    if args.file is None:
        streams.complain(f"the line for the file of keys: {line.rstrip()}")
    else:
        _add(Path(args.file), args.name, line, may_be_known=args.another)
        streams.complain(f"{args.file}: {args.name} has a new key; the key itself is shown only this once")
    streams.say(secret)
    return OK


def _add(path: Path, name: str, line: str, *, may_be_known: bool) -> None:
    """One more line. Raises UsageError."""
    try:
        path.touch(0o640)
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            if name in _known(path, text).names and not may_be_known:
                raise UsageError(f"{path} has a key of {name} already; --another adds one more, beside it")
            file.write(line if text.endswith("\n") or not text else f"\n{line}")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text, so no file of keys") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _known(path: Path, text: str) -> KeyRing:
    try:
        return read_keys(text)
    except BadKeys as error:
        raise UsageError(f"{path}:{error.line}:1: {error}") from None
