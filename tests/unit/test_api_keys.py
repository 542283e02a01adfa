"""API keys: made, kept as hashes, found again."""

from __future__ import annotations

import pytest

from lbproxy import api_keys
from lbproxy.api_keys import BadKeys, KeyRing, hash_of, name_problem, new_key, read_keys


def test_a_key_is_found_by_its_hash_alone() -> None:
    key, other = new_key(), new_key()
    text = f"# keys\n\nteam-a {hash_of(key)}\nteam-b\t{hash_of(other)}  # since May\n"
    ring = read_keys(text)
    assert key not in text and len(key) > 40 and key.isascii() and key != other
    assert (ring.name_of(key.encode()), ring.name_of(other.encode())) == ("team-a", "team-b")
    assert ring.name_of(b"") == ring.name_of(key.encode() + b"x") == ring.name_of(hash_of(key).encode()) == ""
    assert ring.names == {"team-a", "team-b"}
    assert KeyRing({}).name_of(key.encode()) == ""


def test_a_name_may_have_several_keys() -> None:
    keys = [new_key(), new_key()]
    ring = read_keys("".join(f"a {hash_of(key)}\n" for key in keys))
    assert [ring.name_of(key.encode()) for key in keys] == ["a", "a"]
    assert ring.names == {"a"}


HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a", 1, "a line is a name and a hash"),
        (f"a {HASH} more", 1, "a line is a name and a hash"),
        (f"a {HASH}\nb lbp_secret", 2, "the key itself has no place here"),
        ("a sha256:12", 1, "64 hexadecimal digits"),
        (f"a {HASH}\n\nb {HASH}", 3, "the same key stands in line 1"),
        (f"{'a' * 129} {HASH}", 1, "1 to 128 printable characters"),
        (f"* {HASH}", 1, "not * alone"),
    ],
)
def test_what_cannot_be_understood_has_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(BadKeys) as raised:
        read_keys(text)
    assert raised.value.line == line
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_KEYS", 10)
    lines = [f"n sha256:{number:064x}" for number in range(11)]
    assert read_keys("\n".join(lines[:10])).names == {"n"}
    with pytest.raises(BadKeys, match="10 keys are the most") as raised:
        read_keys("\n".join(lines))
    assert raised.value.line == 11


def test_names() -> None:
    assert not name_problem("team-a") and not name_problem("équipe")
    assert name_problem("") and name_problem("a b") and name_problem("#a")
