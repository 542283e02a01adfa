from __future__ import annotations

import pytest

from lbproxy.control.discovery.kubernetes import watching
from lbproxy.control.discovery.kubernetes.slices import Malformed
from lbproxy.control.discovery.kubernetes.watching import CAP_S, Refused, Watching, refusal
from lbproxy.control.discovery.source import MIN_GAP_S, Trouble
from tests.support.kubernetes_objects import bookmark, endpoint, endpoint_slice, event, page, status


class Bench:
    """rng is the highest there is, so that a wait is the longest."""

    def __init__(self, port: int | str | None = None) -> None:
        self.now = 100.0
        self.chance = 1.0
        self.state = Watching("predict", port, "auto", 60.0, lambda: self.now, lambda: self.chance)

    def asked(self) -> dict[str, str]:
        return dict(self.state.ask().query)

    def listed(self, version: str = "10") -> Bench:
        """One pod, in a list that is complete, and a watch after it."""
        self.state.ask()
        assert self.state.page(page(version, endpoint_slice("s", endpoint("10.0.0.1"))))
        self.state.ask()
        self.state.began()
        return self

    @property
    def servers(self) -> list[str]:
        answer = self.state.view.answer
        assert not isinstance(answer, Trouble)
        return [found.address.host for found in answer]


def test_it_begins_with_a_list_of_the_service_s_slices() -> None:
    ask = Bench().state.ask()
    assert dict(ask.query) == {"labelSelector": "kubernetes.io/service-name=predict", "limit": "20"}
    assert not ask.watches


def test_after_the_list_it_watches_from_its_version() -> None:
    bench = Bench()
    bench.state.ask()
    assert bench.state.page(page("10", endpoint_slice("s", endpoint("10.0.0.1"), version="7")))
    ask = bench.state.ask()
    assert ask.watches and ask.timeout_s == 60 and bench.state.wait_s == 0.0
    assert dict(ask.query) == {
        "labelSelector": "kubernetes.io/service-name=predict",
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": "10",
        "timeoutSeconds": "60",
    }
    assert bench.servers == ["10.0.0.1"]


def test_a_list_of_several_pages_counts_when_it_is_complete() -> None:
    bench = Bench()
    bench.state.ask()
    assert not bench.state.page(page("10", endpoint_slice("a", endpoint("10.0.0.1")), more="next"))
    assert bench.servers == []
    assert bench.asked()["continue"] == "next"
    assert bench.state.page(page("10", endpoint_slice("b", endpoint("10.0.0.2"))))
    assert bench.servers == ["10.0.0.1", "10.0.0.2"]
    assert "continue" not in bench.asked()


def test_slices_come_change_and_go() -> None:
    bench = Bench().listed()
    bench.state.line(event("ADDED", endpoint_slice("t", endpoint("10.0.0.2"), version="11")))
    assert bench.servers == ["10.0.0.1", "10.0.0.2"]
    bench.state.line(event("MODIFIED", endpoint_slice("s", endpoint("10.0.0.1", terminating=True), version="12")))
    assert bench.servers == ["10.0.0.2"] and bench.state.view.going == {"10.0.0.1:8080"}
    bench.state.line(event("DELETED", endpoint_slice("s", version="13")))
    assert bench.servers == ["10.0.0.2"] and bench.state.view.going == set()
    bench.state.ended()
    assert bench.asked()["resourceVersion"] == "13"


def test_a_slice_that_changed_is_the_last_one_heard() -> None:
    bench = Bench().listed()
    bench.state.line(event("ADDED", endpoint_slice("t", endpoint("10.0.0.1", terminating=True), version="11")))
    assert bench.servers == []
    bench.state.line(event("MODIFIED", endpoint_slice("s", endpoint("10.0.0.1"), version="12")))
    assert bench.servers == ["10.0.0.1"]


def test_a_bookmark_moves_the_version_and_nothing_else() -> None:
    bench = Bench().listed()
    before = bench.state.view
    bench.state.line(bookmark("500"))
    assert bench.state.view is before
    bench.state.ended()
    assert bench.asked()["resourceVersion"] == "500"


def test_an_answer_that_is_the_same_is_the_same_object() -> None:
    """So that whoever compares answers sees that nothing came."""
    bench = Bench().listed()
    before = bench.state.view.answer
    bench.state.line(event("ADDED", endpoint_slice("t", endpoint("10.0.0.2", ready=False), version="11")))
    assert bench.state.view.answer is before


def test_a_watch_that_lasted_its_time_goes_on_at_once() -> None:
    bench = Bench().listed()
    bench.now += 60.0
    bench.state.ended()
    assert bench.state.wait_s == 0.0 and bench.asked()["resourceVersion"] == "10"


def test_a_watch_that_ends_at_once_does_not_begin_again_at_once() -> None:
    bench = Bench().listed()
    bench.now += 0.25
    bench.state.ended()
    assert bench.state.wait_s == MIN_GAP_S - 0.25 and bench.asked()["resourceVersion"] == "10"


def test_what_did_not_arrive_is_asked_again_as_it_was() -> None:
    for code in (0, 429, 503):
        bench = Bench().listed()
        assert bench.state.failed(code)
        assert bench.asked()["resourceVersion"] == "10" and bench.servers == ["10.0.0.1"]


def test_what_was_refused_makes_the_list_due() -> None:
    for code in (400, 401, 403, 500, 504):
        bench = Bench().listed()
        assert bench.state.failed(code)
        assert "resourceVersion" not in bench.asked() and bench.servers == ["10.0.0.1"]


def test_a_version_that_is_gone_is_no_trouble_once() -> None:
    bench = Bench().listed()
    assert not bench.state.failed(410)
    assert bench.state.wait_s == 0.0 and "watch" not in bench.asked()
    bench.listed()
    assert bench.state.failed(410) and bench.state.wait_s > 0.0, "a list does not say that all is well"
    bench.listed().state.line(bookmark("20"))
    assert not bench.state.failed(410)


def test_a_page_that_is_gone_begins_the_list_anew() -> None:
    bench = Bench()
    bench.state.ask()
    bench.state.page(page("10", endpoint_slice("a", endpoint("10.0.0.1")), more="next"))
    bench.state.ask()
    assert not bench.state.failed(410)
    assert "continue" not in bench.asked()
    bench.state.page(page("12", endpoint_slice("b", endpoint("10.0.0.2"))))
    assert bench.servers == ["10.0.0.2"], "nothing of the first try is left"


def test_a_list_that_is_cut_off_begins_anew() -> None:
    bench = Bench()
    bench.state.ask()
    bench.state.page(page("10", endpoint_slice("a", endpoint("10.0.0.1")), more="next"))
    assert bench.state.failed(0)
    assert "continue" not in bench.asked()


@pytest.mark.parametrize(("chance", "waits"), [(1.0, [2, 4, 8, 16, 30, 30]), (0.0, [1, 2, 4, 8, 15, 15])])
def test_waits_double_up_to_the_cap(chance: float, waits: list[float]) -> None:
    bench = Bench()
    bench.chance = chance
    seen = []
    for _ in waits:
        assert bench.state.failed(0)
        seen.append(bench.state.wait_s)
        bench.state.ask()
        assert bench.state.wait_s == 0.0
    assert seen == waits


def test_the_api_server_may_ask_for_a_longer_wait_but_not_for_ever() -> None:
    bench = Bench()
    bench.state.failed(429, 7.0)
    assert bench.state.wait_s == 7.0
    bench.state.failed(429, 86400.0)
    assert bench.state.wait_s == CAP_S


def test_waits_begin_anew_after_news() -> None:
    bench = Bench()
    for _ in range(4):
        bench.state.failed(0)
    bench.listed().state.line(bookmark("11"))
    bench.state.failed(0)
    assert bench.state.wait_s == 2.0


def test_waits_begin_anew_after_a_watch_that_lasted() -> None:
    bench = Bench()
    for _ in range(4):
        bench.state.failed(0)
    bench.listed()
    bench.now += 60.0
    bench.state.ended()
    bench.state.failed(0)
    assert bench.state.wait_s == 2.0


def test_a_watch_that_is_accepted_is_not_enough_for_that() -> None:
    bench = Bench()
    for _ in range(4):
        bench.state.failed(0)
    bench.listed().state.ended()
    bench.state.failed(0)
    assert bench.state.wait_s == CAP_S


def test_a_service_without_slices_is_an_answer_with_a_flaw() -> None:
    bench = Bench()
    bench.state.ask()
    assert bench.state.page(page("10"))
    assert bench.servers == [] and bench.state.view.lacking == "there is no EndpointSlice of a service predict"
    bench.state.line(event("ADDED", endpoint_slice("s", version="11")))
    assert bench.servers == [] and bench.state.view.lacking == ""


def test_items_may_be_null() -> None:
    bench = Bench()
    assert bench.state.page(b'{"metadata": {"resourceVersion": "1"}, "items": null}')


def test_servers_are_found_again_after_a_port_was_not() -> None:
    bench = Bench("grpc").listed()
    assert isinstance(bench.state.view.answer, Trouble)
    ports = [{"name": "grpc", "port": 9000}]
    bench.state.line(event("MODIFIED", endpoint_slice("s", endpoint("10.0.0.1"), ports=ports, version="11")))
    assert bench.servers == ["10.0.0.1"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[" * 100_000,
        b"[]",
        b"\xff\xfe",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": {}}',
        b'{"type": "RENAMED", "object": {"metadata": {"resourceVersion": "1"}}}',
        b'{"type": "BOOKMARK", "object": {"metadata": {}}}',
        b'{"type": "ERROR", "object": 1}',
        event("DELETED", {"metadata": {"resourceVersion": "11"}}),
    ],
)
def test_a_line_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        Bench().listed().state.line(line)


@pytest.mark.parametrize("body", [b"", b"1", b"{}", b'{"metadata": {}}', page("1")[:-1], page("")])
def test_a_page_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        Bench().state.page(body)
    with pytest.raises(Malformed):
        Bench().state.page(b'{"metadata": {"resourceVersion": "1"}, "items": {}}')


def test_what_was_not_understood_is_not_built_on() -> None:
    bench = Bench().listed()
    bench.state.misunderstood()
    assert bench.state.wait_s > 0.0 and "watch" not in bench.asked() and bench.servers == ["10.0.0.1"]


def test_an_error_event_says_why() -> None:
    with pytest.raises(Refused) as caught:
        Bench().listed().state.line(event("ERROR", status(410, "too old resource version: 10 (20)")))
    assert (caught.value.status, caught.value.why) == (
        410,
        "the API server said 410: too old resource version: 10 (20)",
    )
    with pytest.raises(Refused) as caught:
        Bench().listed().state.line(event("ERROR", {"message": "no code"}))
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (500, b"<html>", "the API server said 500"),
        (500, b'{"message": 5}', "the API server said 500"),
        (500, b'{"message": "a\\nb\\u001b"}', "the API server said 500: a b "),
        (401, b'{"message": "Unauthorized"}', "the API server said 401: the credentials are not valid, or no longer"),
        (
            403,
            b'{"message": "no list for you"}',
            "the API server said 403: no list for you; grant `get`, `list` and `watch` on endpointslices of "
            "discovery.k8s.io in that namespace",
        ),
        (404, b"404 page not found", "the API server said 404: discovery.k8s.io/v1 needs Kubernetes 1.21"),
    ],
)
def test_refusals_say_what_to_do(code: int, body: bytes, why: str) -> None:
    assert (refusal(code, body).status, refusal(code, body).why) == (code, why)


def test_words_of_the_api_server_have_a_bound() -> None:
    assert len(refusal(500, b'{"message": "' + b"x" * 5000 + b'"}').why) < 400


def test_a_service_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_SLICES", 2)
    monkeypatch.setattr(watching, "MAX_ENDPOINTS", 3)
    bench = Bench().listed()
    bench.state.line(event("ADDED", endpoint_slice("t", version="11")))
    with pytest.raises(Malformed, match="more than 2 EndpointSlices"):
        bench.state.line(event("ADDED", endpoint_slice("u", version="12")))
    bench = Bench()
    many = [endpoint(f"10.0.0.{number}", ready=False) for number in range(4)]
    with pytest.raises(Malformed, match="more than 3 endpoints"):
        bench.state.page(page("10", endpoint_slice("s", *many)))
    with pytest.raises(Malformed, match="more than 2 EndpointSlices"):
        bench.state.page(page("10", *(endpoint_slice(name) for name in "abc"), more="next"))


def test_a_zone_that_is_known_later_counts_at_once() -> None:
    state = Bench().state
    state.prefer("a")
    state.page(page("1", endpoint_slice("s", endpoint("10.0.0.1", zone="a"), endpoint("10.0.0.2", zone="b"))))

    def far() -> list[bool]:
        assert not isinstance(state.view.answer, Trouble)
        return [found.far for found in state.view.answer]

    assert far() == [False, True]
    state.prefer("b")
    assert far() == [True, False]
