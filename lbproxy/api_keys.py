"""API keys: who a client is, by a secret that it sends and of which only a hash is known here.

A key is 256 random bits (`new_key`), so a plain SHA-256 of it can't be turned back; what makes hashes of passwords slow
has nothing to slow down here. The file of keys has a line for each:

    # name    hash
    team-a    sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
    team-a    sha256:...    (a name may have several keys: the next one, while the old one is being replaced)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final

MAX_KEYS: Final = 100_000
MAX_NAME: Final = 128  # characters
PREFIX: Final = "lbp_"  # by which people, and programs that look for secrets in code, know a key
HASH: Final = "sha256:"
_is_hash = re.compile(r"[0-9a-fA-F]{64}").fullmatch


class BadKeys(ValueError):
    """The text of a file of keys can't be understood. line: counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class KeyRing:
    """Keys, by their hashes (SHA-256). names: of who has each."""

    __slots__ = ("_known",)

    def __init__(self, names: Mapping[bytes, str]) -> None:
        self._known = {digest: (digest, name) for digest, name in names.items()}

    def name_of(self, key: bytes) -> str:
        """Whose key this is; "" for nobody's.

        How long that takes says nothing about the keys: what is looked up is a hash, of which a stranger can't choose a
        part, and what is found is compared in constant time.
        """
        digest = sha256(key).digest()
        found = self._known.get(digest)
        return found[1] if found is not None and compare_digest(found[0], digest) else ""

    @property
    def names(self) -> frozenset[str]:
        """Of whom there are keys."""
        return frozenset(name for _, name in self._known.values())


def new_key() -> str:
    """A new key: 256 random bits, as text that a header and a URL can have as it is."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """What stands in the file for a key."""
    return HASH + sha256(key.encode()).hexdigest()


def name_problem(name: str) -> str:
    """What is wrong with the name of a key, "" for nothing."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or any(char.isspace() for char in name):
        return f"a name has 1 to {MAX_NAME} printable characters without spaces"
    if name.startswith("#") or name == "*":
        return "a name begins with another character than #, and is not * alone"
    return ""


def read_keys(text: str) -> KeyRing:
    """What a file of keys says. Raises BadKeys for its first line that can't be understood."""
    names: dict[bytes, str] = {}
    lines: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if problem := name_problem(words[0]):
            raise BadKeys(number, problem)
        if len(words) < 2 or (len(words) > 2 and not words[2].startswith("#")):
            raise BadKeys(number, "a line is a name and a hash: `team-a sha256:...`; `lbproxy key new` makes one")
        hexadecimal = words[1].removeprefix(HASH)
        if hexadecimal == words[1] or _is_hash(hexadecimal) is None:
            raise BadKeys(number, "the hash is `sha256:` and 64 hexadecimal digits; the key itself has no place here")
        digest = bytes.fromhex(hexadecimal)
        if digest in names:
            raise BadKeys(number, f"the same key stands in line {lines[digest]}")
        if len(names) >= MAX_KEYS:
            raise BadKeys(number, f"{MAX_KEYS} keys are the most")
        names[digest] = words[0]
        lines[digest] = number
    return KeyRing(names)
