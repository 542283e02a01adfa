"""`lbproxy key new`: the key to standard output, its hash to the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy import cli
from lbproxy.api_keys import hash_of, read_keys

Capture = pytest.CaptureFixture[str]


def test_without_a_file_the_line_is_said(capsys: Capture) -> None:
    assert cli.main(["key", "new", "team-a"]) == 0
    out, err = capsys.readouterr()
    assert err == f"the line for the file of keys: team-a {hash_of(out.strip())}\n"


def test_the_file_gets_a_line_and_nobody_the_key(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours")  # without its line's end
    keys = []
    for words in (["team-a"], ["team-b"], ["team-a", "--another"]):
        assert cli.main(["key", "new", *words, "--file", str(path)]) == 0
        out, err = capsys.readouterr()
        keys.append(out.strip())
        assert keys[-1] not in err and "only this once" in err
    ring = read_keys(path.read_text())
    assert [ring.name_of(key.encode()) for key in keys] == ["team-a", "team-b", "team-a"]
    assert path.read_text().startswith("# ours\nteam-a sha256:")


def test_a_new_file_is_not_for_everybody(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["key", "new", "a", "--file", str(tmp_path / "keys")]) == 0
    assert not (tmp_path / "keys").stat().st_mode & 0o007


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (f"a {hash_of('x')}\n", "a", "has a key of a already; --another adds one more"),
        ("a b c\n", "b", ":1:1: a line is a name and a hash"),
        ("", "a b", "without spaces"),
        ("\udcff", "a", "is not UTF-8 text"),
    ],
)
def test_what_cannot_be_leaves_the_file_alone(text: str, name: str, said: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "keys"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert cli.main(["key", "new", name, "--file", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and said in err
    assert path.read_bytes() == text.encode(errors="surrogateescape")


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["key", "new", "a", "--file", str(tmp_path / "none" / "keys")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
