"""Which class a request that waits is of, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from lbproxy.domain.fairness import FairRules, weights_of
from lbproxy.domain.strategies.base import PickContext
from lbproxy.request_key import KEY_NAME, read_key


@dataclass
class View:
    """A request's head."""

    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/predict"
    host: str = "lb.example"
    query: str = "user=7"


def asks(client: str = "192.0.2.1", **headers: str) -> PickContext:
    return PickContext(client, View({name.replace("_", "-"): value for name, value in headers.items()}))


def test_three_classes_have_turns_as_8_3_and_1() -> None:
    assert weights_of(3) == (8, 3, 1)
    assert [weights_of(n) for n in (1, 2)] == [(1,), (3, 1)]
    assert weights_of(6) == (144, 55, 21, 8, 3, 1)


THREE = FairRules(None, "X-Priority", ("high", "normal", "low"))


@pytest.mark.parametrize(
    ("value", "rank"), [("high", 0), ("normal", 1), ("low", 2), (" HIGH ", 0), ("urgent", 1), ("", 1), ("high, low", 1)]
)
def test_the_class_is_what_the_header_says(value: str, rank: int) -> None:
    assert THREE.rank_of(asks(x_priority=value), is_trusted=True) == rank


def test_who_may_not_say_it_or_says_nothing_is_of_the_usual_class() -> None:
    assert THREE.rank_of(asks(x_priority="high"), is_trusted=False) == 1
    assert THREE.rank_of(asks(), is_trusted=True) == 1
    assert THREE.rank_of(PickContext("192.0.2.1"), is_trusted=True) == 1
    anybody = FairRules(None, "x-priority", ("high", "normal", "low"), is_anybody=True)
    assert anybody.rank_of(asks(x_priority="low"), is_trusted=False) == 2


@pytest.mark.parametrize(
    ("classes", "usual"),
    [
        (("paid", "free"), 1),
        (("a", "b", "c"), 1),
        (("a", "b", "c", "d"), 2),
        (("normal", "low"), 0),
        (("now", "soon", "Normal"), 2),
    ],
)
def test_the_usual_class_is_normal_or_the_middle_one(classes: tuple[str, ...], usual: int) -> None:
    assert FairRules(None, "x", classes).usual == usual


@pytest.mark.parametrize(
    ("key", "share"),
    [
        ("client_ip", b"192.0.2.1"),
        ("header:x-tenant", b"blue"),
        ("api_key", b"team-a"),
        ("query:user", b"7"),
        ("path", b"/predict"),
        ("host", b"lb.example"),
        ("cookie:session", b""),
    ],
)
def test_whose_it_is(key: str, share: bytes) -> None:
    ctx = asks(**{"x-tenant": "blue", KEY_NAME: "team-a"})
    assert FairRules(read_key(key)).share_of(ctx) == share


def test_without_a_key_or_a_head_it_is_everybody_s() -> None:
    assert FairRules(None).share_of(asks()) == b""
    assert FairRules(read_key("api_key")).share_of(PickContext("192.0.2.1")) == b""
    assert FairRules(read_key("client_ip")).share_of(PickContext("192.0.2.1")) == b"192.0.2.1"


def test_a_network_of_ipv6_is_one_client() -> None:
    rules = FairRules(read_key("client_ip"))
    assert rules.share_of(PickContext("2001:db8::1")) == rules.share_of(PickContext("2001:db8::2"))


def test_rules_that_sort_alike_are_the_same() -> None:
    assert THREE.is_same(FairRules(None, "x-priority", ("high", "normal", "low")))
    others = (
        None,
        FairRules(read_key("path"), "x-priority", ("high", "normal", "low")),
        FairRules(None, "x-prio", ("high", "normal", "low")),
        FairRules(None, "x-priority", ("high", "low")),
        FairRules(None, "x-priority", ("high", "normal", "low"), is_anybody=True),
    )
    assert not any(THREE.is_same(other) for other in others)
