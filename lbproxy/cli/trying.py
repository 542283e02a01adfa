"""`lbproxy test`: tries the requests in `tests` of a config file, and says at which line something else came of one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from lbproxy.cli import streams
from lbproxy.cli.common import FAILURE, OK, ConfigRefused, UsageError, add_file, counted, load_config, named_file

if TYPE_CHECKING:
    from lbproxy.config.problems import Problem
    from lbproxy.config.source import Document
    from lbproxy.process.trials import Result


def add_options(parser: argparse.ArgumentParser) -> None:
    add_file(parser, "config file (YAML) with `tests`")
    parser.add_argument("-v", "--verbose", action="store_true", help="say of every test what came of it")


def test(args: argparse.Namespace) -> int:
    path = named_file(args)
    if path is None:
        raise UsageError("say which file: lbproxy test FILE")
    loaded = load_config(path, os.environ)
    from lbproxy.config.problems import Unusable
    from lbproxy.process import trials

    name = loaded.document.file
    if not loaded.config.tests:
        raise UsageError(f"{name} has no `tests`")
    try:
        results = trials.run(loaded.config, base_dir=str(FilePath(path).parent))
    except Unusable as error:
        raise ConfigRefused([str(loaded.problem(error))]) from None
    failed = [result for result in results if result.failures]
    for result in results if args.verbose else ():
        streams.say(f"{'failed' if result.failures else 'ok'}: {trials.story(result)}")
    for problem in _problems(results, loaded.document):
        streams.complain(problem)
    count = counted(len(results), "test")
    if failed:
        streams.complain(f"{name}: {len(failed)} of {count} failed")
        return FAILURE
    streams.say(f"{name}: ok ({count})")
    return OK


def _problems(results: Sequence[Result], document: Document) -> list[Problem]:
    """What is not as expected, in the order of the file."""
    from lbproxy.config.problems import Path, Problem, path_text
    from lbproxy.process.trials import story

    found = []
    for index, result in enumerate(results):
        for key, message in result.failures:
            path: Path = ("tests", index, "expect", key)
            place = document.place(path)
            found.append(Problem(document.file, place.line, place.column, path_text(path), message, story(result)))
    return sorted(found, key=lambda problem: (problem.line, problem.column))
