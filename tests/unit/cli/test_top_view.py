import pytest

from lbproxy.cli.top_view import EVENTS, View


def server(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "address": f"{name}:80", "state": "up", "inflight": 0, "latency": 0.0, "since": 5.0, **more}


STATE: dict[str, object] = {
    "version": "1.2.3",
    "pools": [
        {"name": "p", "usable": 2, "servers": [server("b", inflight=1), server("a", latency=0.5)]},
        {"name": "q", "usable": 0, "servers": [server("c", state="down", inflight=2)]},
    ],
    "recent": [{"text": "before"}],
}
RATES: dict[str, object] = {
    "t": 1.0,
    "pools": {"p": {"rps": 3.0}},
    "servers": {"p/b": {"rps": 1.0, "error_ratio": 0.5}, "p/a": {"rps": 2.0, "error_ratio": 0.0}},
}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> View:
    made = View(clock)
    made.take("state", STATE)
    made.take("rates", RATES)
    return made


def names(view: View, sort: str = "config", wanted: str = "") -> list[str]:
    return [str(row.target) for row in view.rows(sort, wanted)]


def test_rows_are_in_the_order_of_the_config_and_have_their_rates(view: View) -> None:
    assert names(view) == ["p/b", "p/a", "q/c"]
    assert [row.rates.get("rps") for row in view.rows()] == [1.0, 2.0, None]
    assert [(pool["name"], rates.get("rps")) for pool, rates in view.pools] == [("p", 3.0), ("q", None)]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("server", ["p/a", "p/b", "q/c"]),
        ("state", ["q/c", "p/b", "p/a"]),
        ("inflight", ["q/c", "p/b", "p/a"]),
        ("rps", ["p/a", "p/b", "q/c"]),
        ("errors", ["p/b", "p/a", "q/c"]),
        ("latency", ["p/a", "p/b", "q/c"]),
    ],
)
def test_orders(view: View, sort: str, expected: list[str]) -> None:
    assert names(view, sort) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [("P/", ["p/b", "p/a"]), ("down", ["q/c"]), ("a:80", ["p/a"]), ("nothing", [])]
)
def test_a_filter_looks_at_pool_name_address_and_state(view: View, wanted: str, expected: list[str]) -> None:
    assert names(view, wanted=wanted) == expected


def test_what_changed_is_merged_into_what_is_known(view: View) -> None:
    view.take("servers", {"pools": [{"name": "p", "usable": 1, "servers": [server("a", state="drain")]}]})
    assert [row.server["state"] for row in view.rows()] == ["up", "drain", "down"]
    assert [pool["usable"] for pool, _ in view.pools] == [1, 0]


def test_how_long_a_state_lasts_is_counted_on(view: View, clock: Clock) -> None:
    clock.now += 10.0
    view.take("servers", {"pools": [{"name": "p", "servers": [server("a", since=0.5), server("b", since=None)]}]})
    clock.now += 1.0
    assert [row.server["since"] for row in view.rows()] == [None, 1.5, 16.0]


def test_events_follow_those_of_before_and_are_bounded(view: View) -> None:
    for number in range(EVENTS + 10):
        view.take("event", {"text": str(number)})
    assert len(view.events) == EVENTS
    assert view.events[-1]["text"] == str(EVENTS + 9)
    view.take("state", STATE)
    assert [event["text"] for event in view.events] == ["before"]


def test_messages_of_another_version_do_no_harm(view: View) -> None:
    strange: list[tuple[str, object]] = [
        ("news", {"a": 1}),
        ("rates", [1]),
        ("servers", {"pools": [{"servers": 7}, 8, {"name": "z", "servers": [{}]}]}),
        ("servers", {}),
    ]
    for kind, data in strange:
        view.take(kind, data)
    assert names(view) == ["p/b", "p/a", "q/c"]
    view.take("rates", {"servers": {"p/b": 3}, "pools": 4})
    view.take("state", {"pools": [{"servers": [{"since": "long"}]}]})
    assert names(view, "rps") == ["None/None"]


def test_the_age_of_a_latency_goes_on_while_nothing_is_told(view: View, clock: Clock) -> None:
    answered = server("a", latency=0.5, latency_age=20.0)
    view.take("state", {"pools": [{"name": "p", "servers": [answered, server("b", latency_age=None)]}]})
    clock.now += 50.0
    assert [row.server["latency_age"] for row in view.rows()] == [70.0, None]
