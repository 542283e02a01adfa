"""The file of keys: what is wrong with it is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.api_keys import hash_of
from lbproxy.config import key_file
from lbproxy.config.certificates import FileProblem
from lbproxy.config.key_file import read_key_file


def said(path: Path) -> str:
    with pytest.raises(FileProblem) as raised:
        read_key_file(str(path))
    assert raised.value.key == "file"
    return f"{raised.value.message}; {raised.value.suggestion}".replace(str(path), "FILE").removesuffix("; ")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a {hash_of('k')}\n")
    assert read_key_file(str(path)).name_of(b"k") == "a"


def test_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    hint = "`lbproxy key new NAME --file FILE` makes it"
    assert said(path) == f"FILE: cannot be read: No such file or directory; {hint}"
    assert said(tmp_path).endswith("cannot be read: Is a directory")
    path.write_text("# x\na b c\n")
    assert said(path).startswith("FILE:2:1: a line is a name and a hash")
    path.write_bytes(b"\xff")
    assert said(path) == "FILE: is not UTF-8 text"
    monkeypatch.setattr(key_file, "MOST_BYTES", 3)
    path.write_text("# xy")
    assert said(path) == "FILE: is longer than 3 bytes"
