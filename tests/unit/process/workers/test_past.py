from __future__ import annotations

import asyncio
from typing import cast

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.process.workers import past as module
from lbproxy.process.workers.crew import Crew
from lbproxy.process.workers.messages import Find, Found
from lbproxy.process.workers.past import CrewPast


def config(more: str = "") -> Config:
    text = f"listeners: [{{bind: ':1', pool: p}}]\npools: {{p: {{servers: ['127.0.0.1:2']}}}}\n{more}"
    return load_text(text, "lb.yaml", {}).config


class CrewLike:
    """Workers, who answer with the records that they have; None: not at all."""

    def __init__(self, **records: list[dict[str, object]] | None) -> None:
        self.records = {int(name.removeprefix("w")): found for name, found in records.items()}
        self.members = set(self.records)
        self.past: CrewPast

    def tell(self, message: object) -> None:
        assert isinstance(message, Find)
        for number, records in self.records.items():
            if records is not None:
                found = Found(message.number, tuple(records), 10)
                asyncio.get_running_loop().call_soon(self.past.heard, number, found)


def find(crew: CrewLike) -> tuple[list[object], int]:
    async def ask() -> tuple[list[object], int]:
        past = crew.past = CrewPast(cast("Crew", crew), config)
        return [record["ts"] for record in await past.find("id")], past.n_lines

    return asyncio.run(ask())


def test_the_records_of_all_workers_are_found_the_newest_first() -> None:
    crew = CrewLike(w1=[{"ts": "2026-03"}, {"ts": "2026-01"}], w2=[{"ts": "2026-02"}], w3=[])
    assert find(crew) == (["2026-03", "2026-02", "2026-01"], 30)


def test_who_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    assert find(CrewLike(w1=None, w2=[{"ts": "2026-02"}])) == (["2026-02"], 10)


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    async def late() -> None:
        past = CrewPast(cast("Crew", CrewLike()), config)
        past.heard(1, Found(7, (), 1))
        assert past.n_lines == 0

    asyncio.run(late())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", ""),
        ("access_log: off", "the access log is off"),
        ("admin: {recent: 0}", "admin.recent is 0"),
        ("access_log: {format: combined}", "has no request ids"),
    ],
)
def test_it_says_why_nothing_can_be_found(more: str, why: str) -> None:
    async def ask() -> str:
        return CrewPast(cast("Crew", CrewLike()), lambda: config(more)).why

    told = asyncio.run(ask())
    assert why in told
    assert bool(told) == bool(why)
