"""How tests are written. What is refused, and in which words, stands in refused.txt."""

from __future__ import annotations

import pytest

from lbproxy.config.tests_model import Trial, TrialServer, matches


def trial(**keys: object) -> Trial:
    return Trial.model_validate({"request": {}, "expect": {}, **keys})


@pytest.mark.parametrize(
    ("written", "method", "path"),
    [
        ("POST /predict?a=b", "POST", "/predict?a=b"),
        ("/predict", "GET", "/predict"),
        ("OPTIONS *", "OPTIONS", "*"),
        ({"method": "PUT"}, "PUT", "/"),
    ],
)
def test_a_request_has_short_forms(written: object, method: str, path: str) -> None:
    request = trial(request=written).request
    assert (request.method, request.path, request.host, request.client) == (method, path, "localhost", "192.0.2.1")


def test_the_client_is_spelled_as_the_proxy_sees_it() -> None:
    assert trial(request={"client": "2001:DB8:0::1"}).request.client == "2001:db8::1"


def test_a_state_is_short_for_a_mapping() -> None:
    given = trial(given={"p/a": "down", "p/unix:/run/a": {"inflight": 2}}).given
    assert given == {"p/a": TrialServer(state="down"), "p/unix:/run/a": TrialServer(state="up", inflight=2)}


@pytest.mark.parametrize(("written", "route"), [(0, 0), ("none", "none"), (None, None)])
def test_a_route_is_a_position_or_none(written: object, route: object) -> None:
    assert trial(expect={"route": written} if written is not None else {}).expect.route == route


def test_one_server_is_a_list_of_one() -> None:
    assert trial(expect={"server": "a"}).expect.server == ("a",)
    assert trial(expect={"server": ["a", "b"]}).expect.server == ("a", "b")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["[::1]:5001", "a.b:1"]),
        ("[::1]:*", ["[::1]:5001"]),
        ("?.b:1", ["a.b:1"]),
        ("a.b:1", ["a.b:1"]),
        ("aXb:1", []),
        ("b:1", []),
    ],
)
def test_patterns_are_of_whole_names_and_brackets_are_brackets(pattern: str, names: list[str]) -> None:
    assert [name for name in ("[::1]:5001", "a.b:1") if matches(pattern, name)] == names
