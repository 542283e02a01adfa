"""Which sections of RFC 9113 the tables of cases cover, and why some have none."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import h2_cases_of_clients, h2_cases_of_servers

CLIENTS = Counter(case.section for case in h2_cases_of_clients.cases())
SERVERS = Counter(case.section for case in h2_cases_of_servers.cases())
# Sections 3.4 to 8.8, but for those that only have parts.
SECTIONS = (
    *(
        "3.4",
        "4.1",
        "4.2",
        "4.3",
        "5.1",
        "5.1.1",
        "5.1.2",
        "5.2.1",
        "5.2.2",
        "5.2.3",
        "5.3.1",
        "5.3.2",
        "5.4.1",
        "5.4.2",
    ),
    *(
        "5.4.3",
        "5.5",
        "6.1",
        "6.2",
        "6.3",
        "6.4",
        "6.5",
        "6.5.1",
        "6.5.2",
        "6.5.3",
        "6.6",
        "6.7",
        "6.8",
        "6.9",
        "6.9.1",
    ),
    *(
        "6.9.2",
        "6.9.3",
        "6.10",
        "7",
        "8.1",
        "8.1.1",
        "8.2.1",
        "8.2.2",
        "8.2.3",
        "8.3",
        "8.3.1",
        "8.3.2",
        "8.4",
        "8.4.1",
    ),
    *("8.4.2", "8.5", "8.6", "8.7", "8.8"),
)
# Of RFC 7541: where a decoder must fail, or keep its table.
HPACK_SECTIONS = ("2.3.3", "4.2", "4.4", "5.1", "5.2", "6.1", "6.2.1", "6.2.2", "6.2.3")
NO_CASE = {
    "5.2.1": "principles; test_frames_of_clients.py has what they come to: windows of streams and of the connection",
    "5.2.2": "whether to use flow control is the endpoint's to choose",
    "5.2.3": "how, too",
    "5.4.1": "every case that ends a connection: GOAWAY first, then the end",
    "5.4.3": "the end of TCP, in test_frames_of_clients.py",
    "6.5.1": "the format, which cases of 6.5 break",
    "6.9.3": "what a receiver may do with smaller windows is its own affair",
    "8.4.1": "push is refused before there is a request to look at (8.4)",
    "8.4.2": "likewise",
    "8.7": "what was not processed is sent again: test_unprocessed.py",
    "8.8": "examples",
}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_has_cases_or_a_reason(section: str) -> None:
    assert bool(CLIENTS[section] + SERVERS[section]) != (section in NO_CASE), section


def test_each_section_of_hpack_has_cases_for_both_ends() -> None:
    for section in HPACK_SECTIONS:
        assert CLIENTS[f"7541-{section}"], section
        assert SERVERS[f"7541-{section}"], section


def test_no_case_is_of_a_section_that_is_not_listed() -> None:
    known = {*SECTIONS, *(f"7541-{section}" for section in HPACK_SECTIONS)}
    assert {*CLIENTS, *SERVERS} <= known


def test_there_are_many() -> None:
    assert CLIENTS.total() >= 400
    assert SERVERS.total() >= 300


def test_no_two_have_one_name() -> None:
    for cases in (h2_cases_of_clients.cases(), h2_cases_of_servers.cases()):
        assert [name for name, count in Counter(case.ident for case in cases).items() if count > 1] == []
