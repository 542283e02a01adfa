from __future__ import annotations

import pytest

from lbproxy.control.caller import Caller


@pytest.mark.parametrize(
    ("token", "peer", "told"),
    [
        ("ci", "192.0.2.1", "ci from 192.0.2.1"),
        ("", "192.0.2.1", "192.0.2.1"),
        ("", "unix", "the unix socket"),
        ("ci", "unix", "ci from the unix socket"),
    ],
)
def test_who_called_in_one_word_or_three(token: str, peer: str, told: str) -> None:
    assert str(Caller(token, peer)) == told
