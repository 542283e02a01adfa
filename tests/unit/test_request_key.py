"""What may be named as a key, and what is said of everything else."""

from __future__ import annotations

import pytest

from lbproxy.request_key import FORMS, MAX_POINTER, read_key


@pytest.mark.parametrize(
    ("text", "kind", "name", "pointer"),
    [
        ("client_ip", "client_ip", "", None),
        ("path", "path", "", None),
        ("host", "host", "", None),
        ("header:X-User", "header", "x-user", None),
        ("cookie:Sid", "cookie", "Sid", None),
        ("query:user id", "query", "user id", None),
        ("json:/model", "json", "", (b"model",)),
        ("json:/a~1b/~0/0/\u00fc", "json", "", (b"a/b", b"~", b"0", "\u00fc".encode())),
        ("json:/", "json", "", (b"",)),
    ],
)
def test_forms(text: str, kind: str, name: str, pointer: tuple[bytes, ...] | None) -> None:
    key = read_key(text)
    assert (key.text, key.kind, key.name, key.pointer) == (text, kind, name, pointer)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected client_ip, header:NAME"),
        ("url", "did you mean path?"),
        ("source", "did you mean client_ip?"),
        ("model", "did you mean json:/model?"),
        ("/model", "did you mean json:/model?"),
        ("header:", "lacks the name of a header field; such as header:X-Session"),
        ("header:X User", "lacks the name of a header field"),
        ("cookie:a=b", "lacks the name of a cookie"),
        ("query:", "lacks the name of a parameter"),
        ("query:a\nb", "lacks the name of a parameter"),
        ("json:model", "it begins with /; did you mean json:/model?"),
        ("json:", "it begins with /"),
        ("json:/a~2", "write ~0 for ~"),
        ("json:/a~", "write ~0 for ~"),
        ("json:" + "/a" * (MAX_POINTER + 1), f"more than {MAX_POINTER} names"),
        ("path:/a", "expected client_ip"),
    ],
)
def test_what_is_said_of_others(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        read_key(text)
    assert words in str(raised.value)


def test_the_longest_pointer() -> None:
    pointer = read_key("json:" + "/a" * MAX_POINTER).pointer
    assert pointer is not None and len(pointer) == MAX_POINTER
    assert "json:/POINTER" in FORMS
