"""`lbproxy split`: what its words mean, and what it prints."""

from __future__ import annotations

import pytest

from lbproxy._client import AdminError
from lbproxy.cli.common import UsageError
from lbproxy.cli.splitting import chosen, page, read_words

WEB = {
    "listener": "web",
    "route": 0,
    "name": None,
    "by": None,
    "pools": [{"pool": "stable", "share": 95, "ratio": 0.95}, {"pool": "canary", "share": 5, "ratio": 0.05}],
    "live": None,
}
CHAT = {**WEB, "route": 3, "name": "chat", "by": "header:X-User", "live": {"by": "alice from 10.0.0.9", "since": 3.0}}
UNIX = {**WEB, "listener": "unix:/run/lb.sock", "route": 1}


@pytest.mark.parametrize(
    ("words", "name", "wanted"),
    [
        ([], None, None),
        (["web/0"], "web/0", None),
        (["canary=10"], None, {"canary": 10}),
        (["web/0", "stable=90", "canary=10"], "web/0", {"stable": 90, "canary": 10}),
        (["web/0", "file"], "web/0", "file"),
        (["file"], None, "file"),
        (["unix:/run/lb.sock/1", "a.b-c=0"], "unix:/run/lb.sock/1", {"a.b-c": 0}),
    ],
)
def test_words(words: list[str], name: str | None, wanted: object) -> None:
    assert read_words(words) == (name, wanted)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["web/0", "canary=x"], "canary=x: a share is a whole number"),
        (["canary=-1"], "canary=-1: a share is a whole number"),
        (["canary=5%"], "canary=5%: a share is a whole number"),
        (["canary=1", "canary=2"], "canary is given twice"),
        (["web/0", "canary"], "canary: write POOL=SHARE"),
        (["web/0", "canary=1", "file"], "`file` stands alone"),
    ],
)
def test_words_that_are_wrong(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_words(words)
    assert str(raised.value).startswith(complaint)


def test_which_one() -> None:
    several = [WEB, CHAT, UNIX]
    assert chosen(several, None, is_change=False) == several
    assert chosen([WEB], None, is_change=True) == [WEB]
    assert chosen(several, "web/0", is_change=True) == [WEB]
    assert chosen(several, "chat", is_change=True) == [CHAT]
    assert chosen(several, "web/3", is_change=True) == chosen(several, "web/chat", is_change=True) == [CHAT]
    assert chosen(several, "unix:/run/lb.sock/1", is_change=True) == [UNIX]
    assert chosen(several, "unix:/run/lb.sock", is_change=True) == [UNIX]
    assert chosen(several, "web", is_change=False) == [WEB, CHAT]
    assert chosen([], None, is_change=False) == []


def test_none_or_too_many() -> None:
    with pytest.raises(UsageError, match="there are several splits: say which, web/0, web/chat"):
        chosen([WEB, CHAT], None, is_change=True)
    with pytest.raises(UsageError, match="several"):
        chosen([WEB, CHAT], "web", is_change=True)
    with pytest.raises(AdminError, match="there is no split x; there is web/0, web/chat"):
        chosen([WEB, CHAT], "x", is_change=False)
    with pytest.raises(AdminError, match="there is no split"):
        chosen([], None, is_change=True)


def test_a_line() -> None:
    assert page(WEB) == "web/0 (by chance): stable 95 (95 %), canary 5 (5 %)"
    assert page(CHAT) == ("web/chat (by header:X-User): stable 95 (95 %), canary 5 (5 %); set by alice from 10.0.0.9")
    assert page({}) == "None/None (by chance): "
