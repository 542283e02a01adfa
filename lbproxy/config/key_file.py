"""The file that `api_keys` names: read, or said in a sentence what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lbproxy.api_keys import BadKeys, KeyRing, read_keys
from lbproxy.config.certificates import FileProblem

MOST_BYTES: Final = 16 << 20


def read_key_file(path: str) -> KeyRing:
    """The keys in a file. Raises FileProblem."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        hint = "`lbproxy key new NAME --file FILE` makes it" if isinstance(error, FileNotFoundError) else ""
        raise FileProblem("file", f"{path}: cannot be read: {error.strerror}", hint) from None
    if len(data) > MOST_BYTES:
        raise FileProblem("file", f"{path}: is longer than {MOST_BYTES} bytes", "")
    try:
        return read_keys(data.decode())
    except UnicodeDecodeError:
        raise FileProblem("file", f"{path}: is not UTF-8 text", "") from None
    except BadKeys as error:
        raise FileProblem("file", f"{path}:{error.line}:1: {error}", "") from None
