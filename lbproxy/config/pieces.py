"""A file that is read again: what stands there as before is not read anew, and comes to the same.

A piece (lbproxy.config.blocks) with the same text has the same keys, the same models and the same warnings, only in
other lines. A piece with `${VAR}` is read each time, since the variable may have changed, and so is a pool with a
strategy that must be installed. Only what is right comes of this: where anything is wrong the whole file is read, so
that all problems are found, and told in the usual words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from lbproxy.config import common_yaml
from lbproxy.config.blocks import POOLS, Block, cut
from lbproxy.config.model import Config
from lbproxy.config.nodes import MAX_NODES, Place
from lbproxy.config.pool_model import Pool
from lbproxy.config.problems import ConfigError, Path
from lbproxy.config.server_model import BUILT_IN_STRATEGIES
from lbproxy.config.source import Document, Told, parse

LISTENERS = "listeners"


@dataclass(slots=True)
class Piece:
    """What one block says. path: of its key. document: of its text alone. model: what its value was read as, None if
    it is read anew with the file. told: the warnings of checks that concern it alone."""

    path: Path
    value: object
    document: Document
    model: object = None
    told: dict[str, list[Told]] = field(default_factory=dict)


class Kept:
    """The pieces of the file as it was read last, by their text. Together they are as large as that.

    digest: of the octets that were read last, right or wrong; b"" if they could not be.
    """

    def __init__(self) -> None:
        self.pieces: dict[str, Piece] = {}
        self.digest = b""


@dataclass(slots=True)
class Pieced:
    """A file in pieces, its document put together, and its config."""

    document: Document
    config: Config
    pieces: dict[str, Piece]

    def keep(self, kept: Kept) -> None:
        """Nothing was wrong: next time the pieces need not be read."""
        pools = self.config.pools
        kept.pieces.clear()
        for text, piece in self.pieces.items():
            if "${" in text:
                continue
            if piece.path[0] == POOLS and len(piece.path) == 2:
                pool = pools[str(piece.path[1])]
                if not _is_settled(pool):
                    continue
                piece.model = pool
            elif piece.path == (LISTENERS,):
                piece.model = self.config.listeners
            kept.pieces[text] = piece


def _is_settled(pool: Pool) -> bool:
    """Whether nothing but its text decides about it."""
    return pool.strategy.name in BUILT_IN_STRATEGIES


def read(text: str, file: str, environ: Mapping[str, str], kept: Kept) -> Pieced | None:
    """A whole file, None if it must be read in one."""
    text = text if text.endswith("\n") else text + "\n"
    if not common_yaml.is_common(text):
        return None
    document = Document(file)
    data: dict[str, object] = {}
    given: dict[str, object] = {}
    pieces: dict[str, Piece] = {}
    made = cut(text)
    if made is None:
        return None
    if made.pools_line:
        document.keys[POOLS,] = Place(made.pools_line, 1)
        document.values[POOLS,] = Place(made.pool_line, made.pool_column)
    for block in made.blocks:
        piece = kept.pieces.get(block.text) or _read(block, file, environ)
        if piece is None or piece.path in document.keys:
            return None
        pieces[block.text] = piece
        _add(piece, block, document)
        holder, models, name = data, given, str(piece.path[-1])
        if block.is_pool:
            holder = data.setdefault(POOLS, {})  # type: ignore[assignment]
            models = given.setdefault(POOLS, {})  # type: ignore[assignment]
        holder[name] = piece.value
        models[name] = piece.value if piece.model is None else piece.model
    document.data = data
    document.values[()] = Place(made.first_line, 1)
    if len(document.keys) + len(document.values) > MAX_NODES:
        return None
    try:
        return Pieced(document, Config.model_validate(given), pieces)
    except ValidationError:
        return None


def _read(block: Block, file: str, environ: Mapping[str, str]) -> Piece | None:
    try:
        document = parse(block.text, file, environ)
    except ConfigError:
        return None
    value = document.data
    path: Path = ()
    for _ in range(2 if block.is_pool else 1):
        if not isinstance(value, dict) or len(value) != 1 or document.problems:
            return None
        [(name, value)] = value.items()
        path = (*path, name)
    for outer in range(len(path)):
        del document.values[path[:outer]]
        document.keys.pop(path[:outer], None)
    return Piece(path, value, document)


def _add(piece: Piece, block: Block, document: Document) -> None:
    document.keys |= piece.document.keys
    document.values |= piece.document.values
    document.flow |= piece.document.flow
    document.lines[piece.path] = block.line
    document.told[piece.path] = piece.told
