"""`GET /api/v1/explain`: why a request would go where it would go, and what came of one that has been."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, Protocol

from aiohttp import web

from lbproxy.control import explaining
from lbproxy.control.admin import Route
from lbproxy.control.caller import Caller
from lbproxy.control.explaining import Asked, Moment, chosen, explain_record, peer_address
from lbproxy.control.problem import problem
from lbproxy.control.status import Json
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.recent import MOST_FOUND, RecentLines, lines_with, needle_of

PATH: Final = "/api/v1/explain"
PAUSE_BYTES: Final = 1 << 20
"""After so many bytes of a search, about a millisecond, what else the process has to do comes first."""
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_SINGLE: Final = ("method", "path", "host", "from", "listener", "request_id", "body")
_KNOWN: Final = (*_SINGLE, "header")
_OFF: Final = "no request is recorded: the access log is off (access_log; its path may be /dev/null)"
_NO_IDS: Final = "the access log's format {} has no request ids; the format json has"
_NONE_KEPT: Final = "no request is recorded: admin.recent is 0"


class Log(Protocol):
    """The access log as it is now. format: None: it is off."""

    @property
    def writer(self) -> LogWriter | None: ...

    @property
    def recent(self) -> RecentLines | None: ...

    @property
    def format(self) -> str | None: ...


class Records(Protocol):
    """The requests that have been. why: nothing can be found, a sentence; "" if something may be. n_lines: how many are
    kept. find: those of an id, the newest first."""

    @property
    def why(self) -> str: ...

    @property
    def n_lines(self) -> int: ...

    async def find(self, request_id: str) -> list[Mapping[str, object]]: ...


class Past:
    """Those of this process. See Records."""

    def __init__(self, log: Log) -> None:
        self._log = log

    @property
    def why(self) -> str:
        return why_nothing(self._log.format, keeps_lines=self._log.recent is not None)

    @property
    def n_lines(self) -> int:
        """How many are kept."""
        return self._log.recent.n_lines if self._log.recent is not None else 0

    async def find(self, request_id: str) -> list[Mapping[str, object]]:
        """The records of an id, the newest first."""
        writer, lines = self._log.writer, self._log.recent
        if writer is not None:
            writer.flush_soon()  # what waits for the next batch has been, too
        if lines is None:
            return []
        needle, found, n_bytes = needle_of(request_id), list[bytes](), 0
        for data in lines.newest_first():
            found += lines_with(needle, data)
            if len(found) >= MOST_FOUND:
                break
            n_bytes += len(data)
            if n_bytes >= PAUSE_BYTES:
                n_bytes = 0
                await asyncio.sleep(0)
        return [json.loads(line) for line in found[:MOST_FOUND]]


def why_nothing(log_format: str | None, *, keeps_lines: bool) -> str:
    """Why no request can be found, "" if one may be. log_format: of the access log, None if it is off."""
    if log_format is None:
        return _OFF
    if log_format != "json":
        return _NO_IDS.format(log_format)
    return "" if keeps_lines else _NONE_KEPT


class ExplainApi:
    """listeners: those that there are now. moment: what counts for all requests now."""

    def __init__(
        self, listeners: Callable[[], Sequence[ListenerRuntime]], moment: Callable[[], Moment], past: Records
    ) -> None:
        self._listeners = listeners
        self._moment = moment
        self._past = past

    def routes(self) -> tuple[Route, ...]:
        return (("GET", PATH, self._get),)

    async def _get(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        query = request.query
        try:
            values = single_values({name: query.getall(name) for name in query})
            if "request_id" in values:
                return await self._of_past(values)
            asked = asked_of(values, query.getall("header", []))
            listener = chosen(self._listeners(), values.get("listener"))
            told = explaining.explain(listener, asked, self._moment())
        except ValueError as error:
            return problem(422, str(error), _HEADERS)
        except LookupError as error:
            return problem(404, str(error), _HEADERS)
        return web.json_response(told, headers=_HEADERS)

    async def _of_past(self, values: Mapping[str, str]) -> web.StreamResponse:
        if len(values) > 1:
            raise ValueError("request_id stands alone: it asks for a request that has been")
        request_id = values["request_id"]
        if self._past.why:
            raise LookupError(self._past.why)
        found = await self._past.find(request_id)
        if not found:
            raise LookupError(
                f"request {request_id[:200]} is not among the last {self._past.n_lines} (admin.recent); requests that "
                "are not over have no record yet"
            )
        told: Json = {"request_id": request_id, "records": [explain_record(record) for record in found]}
        return web.json_response(told, headers=_HEADERS)


def single_values(given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The parameters that stand once. Raises ValueError with a sentence for one that is not known, or stands twice."""
    values: dict[str, str] = {}
    for name, several in given.items():
        if name not in _KNOWN:
            close = get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KNOWN)}"
            raise ValueError(f"{name[:50]}: unknown parameter; {hint}")
        if name == "header":
            if "request_id" in given:
                raise ValueError("request_id stands alone: it asks for a request that has been")
            continue
        if len(several) > 1:
            raise ValueError(f"{name} is given {len(several)} times")
        values[name] = several[0]
    return values


def asked_of(values: Mapping[str, str], headers: Sequence[str]) -> Asked:
    """The request in the parameters. headers: `name:value`. Raises ValueError with a sentence."""
    fields: list[tuple[str, str]] = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"header: {text[:200]!r} is not name:value")
        fields.append((name.strip(), value.strip()))
    usual = Asked()
    return Asked(
        method=values.get("method", usual.method),
        path=values.get("path", usual.path),
        host=values.get("host"),
        headers=tuple(fields),
        peer=peer_address(values["from"]) if "from" in values else usual.peer,
        body=values.get("body", usual.body),
    )
