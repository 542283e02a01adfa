"""The requests that have been, in all workers: each keeps its own, and the controller asks all of them.

Only who serves at this moment is asked: what a worker kept is gone with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from itertools import count
from typing import Final

from lbproxy.config.model import Config
from lbproxy.control.explain_api import why_nothing
from lbproxy.process.access_log import kept_lines
from lbproxy.process.workers.crew import Crew
from lbproxy.process.workers.messages import Find, Found
from lbproxy.telemetry.recent import MOST_FOUND

PATIENCE_S: Final = 2.0


class CrewPast:
    """See Records (control/explain_api.py). config: the one in force."""

    def __init__(self, crew: Crew, config: Callable[[], Config]) -> None:
        self._crew = crew
        self._config = config
        self._questions = count()
        self._answers: dict[int, dict[int, Found]] = {}  # by question and worker
        self._news = asyncio.Event()
        self.n_lines = 0

    @property
    def why(self) -> str:
        """Nothing can be found, a sentence; "" if something may be."""
        config = self._config()
        log = config.access_log
        return why_nothing(None if log is None else log.format, keeps_lines=bool(kept_lines(config)))

    async def find(self, request_id: str) -> list[Mapping[str, object]]:
        """The records of an id, the newest first. Who does not answer within PATIENCE_S has none."""
        number = next(self._questions)
        answers: dict[int, Found] = {}
        self._answers[number] = answers
        asked = self._crew.members
        self._crew.tell(Find(number, request_id))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while not answers.keys() >= asked & self._crew.members:
                        self._news.clear()
                        await self._news.wait()
        finally:
            del self._answers[number]
        self.n_lines = sum(found.n_lines for found in answers.values())
        records = [record for found in answers.values() for record in found.records]
        return sorted(records, key=lambda record: str(record.get("ts", "")), reverse=True)[:MOST_FOUND]

    def heard(self, worker: int, found: Found) -> None:
        """A worker answers. Perhaps nobody waits for it any more."""
        answers = self._answers.get(found.number)
        if answers is not None:
            answers[worker] = found
            self._news.set()
