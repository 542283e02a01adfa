"""The parameters of a question, and which records answer it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbproxy.control.explain_api import PAUSE_BYTES, Past, asked_of, single_values
from lbproxy.control.explaining import Asked
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.recent import MOST_FOUND, RecentLines


def test_a_question_without_parameters_is_about_the_front_page() -> None:
    assert asked_of(single_values({}), []) == Asked("GET", "/", None, (), "127.0.0.1")


def test_all_parameters() -> None:
    given = {
        "method": ["POST"],
        "path": ["/a?b=c"],
        "host": ["h"],
        "from": ["::1"],
        "listener": ["l"],
        "header": ["A: b", "c:d:e"],
    }
    values = single_values(given)
    assert values["listener"] == "l"
    assert asked_of(values, given["header"]) == Asked("POST", "/a?b=c", "h", (("A", "b"), ("c", "d:e")), "::1")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metod": ["GET"]}, "metod: unknown parameter; did you mean method?"),
        ({"zzz": ["1"]}, "zzz: unknown parameter; known are method, path"),
        ({"method": ["A", "B"]}, "method is given 2 times"),
        ({"request_id": ["1"], "header": ["a:b"]}, "request_id stands alone"),
    ],
)
def test_parameters_that_are_none(given: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        single_values(given)


@pytest.mark.parametrize("header", ["", "a", ":b", " : b"])
def test_headers_that_are_none(header: str) -> None:
    with pytest.raises(ValueError, match="is not name:value"):
        asked_of({}, [header])


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="from: 'x' is neither"):
        asked_of({"from": "x"}, [])


# --- what has been --------------------------------------------------------------------------------------------------


@dataclass
class Log:
    writer: LogWriter | None
    recent: RecentLines | None
    format: str | None = "json"


def line(request_id: str, number: int = 0, fill: str = "") -> str:
    return json.dumps({"request_id": request_id, "n": number, "fill": fill}, separators=(",", ":"))


def test_records_are_found_before_they_are_written(tmp_path: Path) -> None:
    recent = RecentLines(100)
    writer = LogWriter(str(tmp_path / "log"), recent=recent)
    past = Past(Log(writer, recent))
    writer.append(line("a", 1))
    writer.append(line("b", 2))
    assert asyncio.run(past.find("a")) == [{"request_id": "a", "n": 1, "fill": ""}]
    writer.append(line("a", 3))
    assert [record["n"] for record in asyncio.run(past.find("a"))] == [3, 1]
    assert asyncio.run(past.find("c")) == []
    assert (past.why, past.n_lines) == ("", 3)
    writer.close(5)


def test_one_id_gives_so_many_records_and_no_more() -> None:
    recent = RecentLines(1000)
    for number in range(100):
        recent.keep(1, line("a", number).encode() + b"\n")
    past = Past(Log(None, recent))
    assert [record["n"] for record in asyncio.run(past.find("a"))] == list(range(99, 99 - MOST_FOUND, -1))


def test_a_long_search_lets_others_in() -> None:
    recent = RecentLines(1000)
    for _ in range(5):
        recent.keep(1, line("a", fill="x" * PAUSE_BYTES).encode() + b"\n")
    past, turns = Past(Log(None, recent)), 0

    async def both() -> None:
        nonlocal turns
        async with asyncio.TaskGroup() as group:
            search = group.create_task(past.find("b"))
            while not search.done():
                turns += 1
                await asyncio.sleep(0)

    asyncio.run(both())
    assert turns >= 5


@pytest.mark.parametrize(
    ("lines", "log_format", "why"),
    [
        (None, None, "no request is recorded: the access log is off"),
        (None, "json", "no request is recorded: admin.recent is 0"),
        (RecentLines(1), "combined", "the access log's format combined has no request ids"),
        (None, "common", "the access log's format common has no request ids; the format json has"),
    ],
)
def test_why_nothing_can_be_found(lines: RecentLines | None, log_format: str | None, why: str) -> None:
    assert Past(Log(None, lines, log_format)).why.startswith(why)
