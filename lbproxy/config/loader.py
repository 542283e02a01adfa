"""File -> Config, or every problem at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from lbproxy.config import pieces
from lbproxy.config.availability import unavailable_paths
from lbproxy.config.checks import check
from lbproxy.config.limits_checks import check_key_file
from lbproxy.config.model import Config
from lbproxy.config.pieces import Kept
from lbproxy.config.problems import ConfigError, Problem, Unusable, path_text
from lbproxy.config.source import Document, decoded, parse, read_bytes, shown_name
from lbproxy.config.tls_checks import check_files
from lbproxy.config.validation import validate

__all__ = ["ConfigError", "Kept", "Loaded", "Problem", "load_file", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that can be run, and what is legal in it but suspicious."""

    config: Config
    warnings: tuple[Problem, ...]
    document: Document

    def problem(self, unusable: Unusable) -> Problem:
        """What turned out when the config was about to be used, with its place in the file."""
        place = self.document.place(unusable.path)
        return Problem(self.document.file, place.line, place.column, path_text(unusable.path), str(unusable))


def load_file(
    path: str | FilePath, environ: Mapping[str, str], *, checks_files: bool = False, kept: Kept | None = None
) -> Loaded:
    """Read and check a config file. `environ` is what `${VAR}` is replaced from. Raises ConfigError.

    checks_files: look at the certificates and keys that it names, too. kept: see `load_text`.
    """
    base_dir = FilePath(path).parent if checks_files else None
    if kept is not None:
        kept.digest = b""
    raw = read_bytes(path)
    if kept is not None:
        kept.digest = digest(raw)
    name = shown_name(path)
    return load_text(decoded(raw, name), name, environ, base_dir=base_dir, kept=kept)


def digest(raw: bytes) -> bytes:
    """A file's content, in short."""
    return hashlib.sha256(raw).digest()


def load_text(
    text: str,
    filename: str,
    environ: Mapping[str, str],
    *,
    base_dir: str | FilePath | None = None,
    kept: Kept | None = None,
) -> Loaded:
    """Like `load_file`, for text that came from elsewhere; `filename` stands in the messages.

    base_dir: where relative paths of certificates start; None: files are not looked at. kept: of a file that is read
    again and again: what is as it was when it was right last is not read anew. What comes of it is the same.
    """
    if kept is not None and (pieced := pieces.read(text, filename, environ, kept)) is not None:
        try:
            loaded = _judged(pieced.document, pieced.config, base_dir)
        except ConfigError:
            pass  # all that is wrong is found in the whole
        else:
            pieced.keep(kept)
            return loaded
    document = parse(text, filename, environ)
    return _judged(document, None, base_dir)


def _judged(document: Document, config: Config | None, base_dir: str | FilePath | None) -> Loaded:
    """What comes of a document. config: its models, if they have been made."""
    for path, value in unavailable_paths(document.data):
        what = "is" if value is None else f"{value} is"
        document.complain(path, f"{what} not available in this version", at_key=value is None)
    if config is None:
        config = validate(document)
    if config is not None:
        check(config, document)
        if base_dir is not None:
            check_files(config, document, base_dir)
            check_key_file(config, document, base_dir)
    problems = sorted(document.problems, key=lambda problem: (problem.line, problem.column))
    errors = tuple(problem for problem in problems if not problem.is_warning)
    if errors or config is None:
        raise ConfigError(errors)
    return Loaded(config, tuple(problems), document)
