from __future__ import annotations

import pytest

from lbproxy.config.bind_checks import overlaps, reaches
from lbproxy.config.notation import parse_bind


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        (":80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "127.0.0.1:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("localhost:80", ":80", True),
        ("a.example:80", "A.example:80", True),
        ("a.example:80", ":80", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", ":80", False),
    ],
)
def test_overlaps(one: str, other: str, expected: bool) -> None:
    assert overlaps(parse_bind(one), parse_bind(other)) is expected
    assert overlaps(parse_bind(other), parse_bind(one)) is expected


@pytest.mark.parametrize(
    ("server", "bound", "expected"),
    [
        ("127.0.0.1:80", ":80", True),
        ("127.0.0.9:80", ":80", True),
        ("10.0.0.1:80", ":80", False),
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "10.0.0.1:80", False),
        ("localhost:80", "127.0.0.1:80", True),
        ("LocalHost.:80", "127.0.0.1:80", True),
        ("Me.Example.:80", "me.example:80", True),
        ("[::1]:80", ":80", False),
        ("gpu:80", ":80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("unix:/a", "unix:/a", True),
    ],
)
def test_reaches(server: str, bound: str, expected: bool) -> None:
    assert reaches(parse_bind(server), parse_bind(bound)) is expected
