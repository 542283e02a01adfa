"""docs/http.md says what is refused, how, and which case proves it; all of that is tried here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from lbproxy.errors import FAULTS, REJECTED_REASONS, Side
from tests.support.client import Client, receive
from tests.support.corpus import Case, load
from tests.support.daemon import LbProxy
from tests.support.origin import Origin

HERE = Path(__file__).parent
DOCS = HERE.parents[2] / "docs"
PAGE = (DOCS / "http.md").read_text()
CASES = [case for case in load(HERE / "corpus" / "requests.txt") if case.kind == "reject"]
_ROW = re.compile(r"^\| (?P<form>.+?) \| (?P<status>\d{3}) \| `(?P<word>\w+)` \|(?: (?P<cases>.+?) \|)?$", re.M)


@dataclass(frozen=True)
class Row:
    form: str
    status: int
    word: str
    patterns: tuple[str, ...]

    def covers(self, case: Case) -> bool:
        return any(fnmatchcase(case.id, pattern) for pattern in self.patterns)


ROWS = [
    Row(found["form"], int(found["status"]), found["word"], tuple(re.findall(r"`(\S+?)`", found["cases"] or "")))
    for found in _ROW.finditer(PAGE)
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """Status and word of the answer to every case that is to be refused."""
    found = {}
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "main", "bind": "127.0.0.1:0", "pool": "main", "protocols": ["h1"]}],
            "pools": {"main": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("refusals")) as lb:
            for case in CASES:
                with Client(lb.port("main")) as client:
                    client.send(case.data)
                    last = receive(client, None).responses[-1]
                problem = json.loads(last.body)
                found[case.id] = (last.status, str(problem["type"]).removeprefix("urn:lbproxy:fault:"))
            yield found


def test_every_row_has_the_status_of_the_fault_table() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if FAULTS[row.word].status != row.status] == []


def test_every_refusal_of_a_client_is_on_the_page() -> None:
    refusals = {
        word for word, fault in FAULTS.items() if fault.side is Side.CLIENT and fault.reason in REJECTED_REASONS
    }
    others = "".join((DOCS / page).read_text() for page in ("http2.md", "grpc.md", "limits.md"))
    assert refusals - {row.word for row in ROWS} - set(re.findall(r"`(\w+)`", others)) == set()


def test_every_row_is_proved_by_cases_and_every_case_has_a_row(answers: dict[str, tuple[int, str]]) -> None:
    proved = [row for row in ROWS if row.patterns]
    unproved = [
        f"{row.form}: {pattern}"
        for row in proved
        for pattern in row.patterns
        if not any(fnmatchcase(case.id, pattern) for case in CASES)
    ]
    assert not unproved
    assert [case.id for case in CASES if not any(row.covers(case) for row in proved)] == []
    wrong = [
        f"{case.id}: {answers[case.id]} instead of {(row.status, row.word)}"
        for row in proved
        for case in CASES
        if row.covers(case) and answers[case.id] != (row.status, row.word)
    ]
    assert not wrong, "\n".join(wrong)
