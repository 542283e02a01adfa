import json
import random

import pytest

from lbproxy.control.event_log import EventLog
from lbproxy.control.news import News
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.strategies.least_connections import LeastConnections


class Bench:
    def __init__(self) -> None:
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("p", [], strategy, strategy)
        self.pools = {"p": self.pool}
        self.events = EventLog(lambda: 1000.0)
        self.news = News(self.events)

    def told(self, not_ready: str | None = None) -> list[tuple[str, str]]:
        """Kind and text of what an observation adds."""
        before = self.events.last
        self.news.observe(self.pools, not_ready)
        found = [json.loads(event.text) for event in self.events.after(before)]
        return [(event["kind"], event["text"]) for event in found]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_readiness_is_news_when_it_changes_not_when_its_reason_does(bench: Bench) -> None:
    assert bench.told("pool p has no usable server") == [("process", "not ready: pool p has no usable server")]
    assert bench.told("another reason") == []
    assert bench.told() == [("process", "ready")]
    assert bench.told() == []


def test_fail_open_begins_and_ends(bench: Bench) -> None:
    bench.told()
    bench.pool.members.is_failing_open = True
    [(kind, text)] = bench.told()
    assert (kind, text.partition(":")[0]) == ("fail_open", "pool p fails open")
    assert bench.told() == []
    bench.pool.members.is_failing_open = False
    assert bench.told() == [("fail_open", "pool p no longer fails open")]


def test_a_name_that_stops_resolving_and_comes_back(bench: Bench) -> None:
    name = Name("app.example", 1.0)
    bench.pool.names.append(name)
    bench.told()
    name.answered(2, 2.0)
    assert bench.told() == [], "the first answer is as it should be"
    name.failed("no answer within 2 s", 3.0)
    told = "pool p: looking up app.example failed: no answer within 2 s; the last good answer stays in use"
    assert bench.told() == [("names", told)]
    assert bench.told() == []
    name.answered(3, 4.0)
    assert bench.told() == [("names", "pool p: app.example resolves again, to 3 addresses")]


def test_a_name_that_never_resolved_says_that_its_server_lacks(bench: Bench) -> None:
    name = Name("gone.example", 1.0)
    bench.pool.names.append(name)
    bench.told()
    name.failed("Name or service not known", 2.0)
    told = "pool p: looking up gone.example failed: Name or service not known; it has no server yet"
    assert bench.told() == [("names", told)]


def test_a_pool_that_went_is_forgotten(bench: Bench) -> None:
    bench.pool.members.is_failing_open = True
    assert len(bench.told()) == 2
    del bench.pools["p"]
    assert bench.told() == []
    bench.pools["p"] = bench.pool
    assert [kind for kind, _ in bench.told()] == ["fail_open"]
