"""What a run of chaos complains about."""

from __future__ import annotations

from collections import Counter

from tests.soak import moody_http2
from tests.soak.chaos import COUNTERS, Report
from tests.soak.moody_server import MOODS
from tests.soak.rude_clients import HTTP_MANNERS, TCP_MANNERS
from tests.soak.rude_http2 import HTTP2_MANNERS


def report(rss_after: int = 100, fds_after: int = 20) -> Report:
    return Report(600.0, 1, rss_before=100, rss_after=rss_after, fds_before=20, fds_after=fds_after)


def test_growth_of_memory_up_to_a_twentieth_is_allowed() -> None:
    assert report(104).complaints() == []
    assert report(90).complaints() == []
    assert report(106).complaints() == ["memory grew by 6.0%"]


def test_no_descriptor_may_be_kept() -> None:
    found = report(fds_after=21)
    found.kinds_before, found.kinds_after = Counter(socket=9, file=2), Counter(socket=10, file=2)
    assert found.complaints() == ["1 descriptors more than before (socket: 1)"]


def test_the_lines_say_what_happened() -> None:
    found = report(102)
    found.counts["killed"] = 3
    found.metrics = dict.fromkeys(COUNTERS, 7.0)
    text = "\n".join(found.lines())
    assert "seed 1: 3 killed" in text and "7 retries_total" in text and "(+2.0%)" in text


def test_most_of_the_time_servers_and_clients_behave() -> None:
    """Otherwise everything would be ejected all the time, and nothing else tested."""
    for kinds in (MOODS, moody_http2.MOODS, HTTP_MANNERS, HTTP2_MANNERS, TCP_MANNERS):
        assert max(kinds.values()) >= 0.5 * sum(kinds.values())
        assert min(kinds.values()) > 0
