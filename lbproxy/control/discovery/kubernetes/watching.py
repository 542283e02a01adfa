"""The conversation with the API about one service, without I/O: what to ask next, and what an answer means.

    LIST, page by page ──all──> WATCH from its resourceVersion ──line──> a slice came, changed, went, or a bookmark
      ^                           │        ^
      │ 410, most other errors    │        │ it ended or was cut, or the server is busy: go on where it was
      └───────────────────────────┴────────┘

A resourceVersion means something to the API server only, so it is never compared. 410 says that it is too old: the list
is asked for again, at once where that is the first in a row. What fails is tried again after BASE_S to CAP_S seconds,
twice as long each time, jittered; a line of a watch, or a watch that lasted its time, says that all is well again.

Everything that the API server can make grow has a bound: a page, a line (client.py), slices, endpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lbproxy.control.discovery.kubernetes.slices import (
    Malformed,
    Slice,
    View,
    mapping,
    name_of,
    read_slice,
    servers,
    version_of,
)
from lbproxy.control.discovery.source import MIN_GAP_S, Found, Trouble

BASE_S = 1.0
CAP_S = 30.0
PAGE = 20  # slices of one page: some 2 MB at most, as a slice has 100 endpoints
MAX_SLICES = 512
MAX_ENDPOINTS = 8192  # of a service, ready or not
GONE = 410
BUSY = (429, 503)
_DOUBLINGS = 5  # BASE_S is CAP_S then


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. watches: the answer has lines without end, for timeout_s."""

    query: tuple[tuple[str, str], ...]
    watches: bool = False
    timeout_s: int = 0


class Watching:
    """service: its name. port, family: as slices.servers has them. interval_s: how long one watch lasts.

    clock: monotonic seconds; rng: 0 to 1. wait_s: how long to wait before the next request. view: what is known.
    """

    def __init__(
        self,
        service: str,
        port: int | str | None,
        family: str,
        interval_s: float,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self._service = service
        self._port = port
        self._family = family
        self._interval_s = max(1, round(interval_s))
        self._clock = clock
        self._rng = rng
        self.wait_s = 0.0
        self.view = View(())
        self._zone = ""
        self._version = ""  # "": a list is due
        self._next_page = ""
        self._coming: dict[str, Slice] = {}  # of a list that is not complete
        self._slices: dict[str, Slice] = {}
        self._n_failures = 0
        self._watch_began_at = 0.0

    def prefer(self, zone: str) -> None:
        """Endpoints of this zone come first from now on."""
        self._zone = zone
        if self._slices:
            self._look()

    # --- asking -----------------------------------------------------------------------------------------------------

    def ask(self) -> Ask:
        """The next request."""
        self.wait_s = 0.0
        label = ("labelSelector", f"kubernetes.io/service-name={self._service}")
        if not self._version:
            page = (("continue", self._next_page),) if self._next_page else ()
            return Ask((label, ("limit", str(PAGE)), *page))
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(self._interval_s),
        }
        return Ask((label, *query.items()), True, self._interval_s)

    # --- answers ----------------------------------------------------------------------------------------------------

    def page(self, body: bytes) -> bool:
        """One page of the list came. True: it was the last, and `view` is new. Raises Malformed."""
        data = mapping(_parsed(body), "list")
        items = data.get("items")
        if items is not None and not isinstance(items, list):  # null, where there is none
            raise Malformed("the API server's list has no items")
        version, more = version_of(data), mapping(data["metadata"], "metadata").get("continue")
        for item in items or ():
            made = read_slice(item)
            self._coming[made.name] = made
        self._check_bounds(self._coming)
        if isinstance(more, str) and more:
            self._next_page = more
            return False
        self._slices, self._version = self._coming, version
        self._start_anew(version)
        self._look()
        return True

    def began(self) -> None:
        """A watch was accepted: from now on every change is heard."""
        self._watch_began_at = self._clock()

    def line(self, line: bytes) -> None:
        """A line of the watch came, and `view` may be new. Raises Malformed, and Refused for an ERROR event."""
        data = mapping(_parsed(line), "event")
        kind, value = data.get("type"), data.get("object")
        if kind == "ERROR":
            status = mapping(value, "status")
            code = status.get("code")
            raise refused(code if isinstance(code, int) else 500, _message(status))
        if kind == "DELETED":
            self._slices.pop(name_of(value), None)
        elif kind in ("ADDED", "MODIFIED"):
            made = read_slice(value)
            self._slices.pop(made.name, None)  # what changed last comes last
            self._slices[made.name] = made
            self._check_bounds(self._slices)
        elif kind != "BOOKMARK":
            raise Malformed(f"the API server's watch has an event of the unknown type {str(kind)[:40]!r}")
        self._version = version_of(value)
        self._n_failures = 0
        if kind != "BOOKMARK":
            self._look()

    def ended(self) -> None:
        """The watch is over, since its time is, or since the connection was cut: it goes on where it was."""
        lasted_s = self._clock() - self._watch_began_at
        if lasted_s >= self._interval_s:
            self._n_failures = 0
        self.wait_s = max(0.0, MIN_GAP_S - lasted_s)

    def failed(self, status: int, retry_after_s: float = 0.0) -> bool:
        """A request was refused, with this status; 0: the API server was not reached, or not understood.

        A request that did not reach anybody, or somebody who is busy, is made again as it is; what was refused makes
        the list due. False: it is no trouble, since it is quite usual.
        """
        self._n_failures += 1
        if self._coming or status not in (0, *BUSY):
            self._start_anew("")
        if status == GONE and self._n_failures == 1:
            return False
        most_s = min(CAP_S, BASE_S * 2 ** min(self._n_failures, _DOUBLINGS))
        self.wait_s = min(CAP_S, max(BASE_S, most_s * (0.5 + self._rng() / 2), retry_after_s))
        return True

    def misunderstood(self) -> None:
        """What came is not what the API promises: what is known of its state is not to be built on."""
        self._start_anew("")
        self.failed(0)

    def _start_anew(self, version: str) -> None:
        self._version, self._next_page, self._coming = version, "", {}

    def _look(self) -> None:
        view = servers(self._slices.values(), self._port, self._family, self._zone)
        if not self._slices:
            view = View((), lacking=f"there is no EndpointSlice of a service {self._service}")
        if not isinstance(view.answer, Trouble) and _same(view, self.view):
            view = View(self.view.answer, view.going, view.lacking)  # who gets the same answer again knows that it is
        self.view = view

    def _check_bounds(self, slices: dict[str, Slice]) -> None:
        if len(slices) > MAX_SLICES:
            raise Malformed(f"the service has more than {MAX_SLICES} EndpointSlices")
        if sum(len(item.endpoints) for item in slices.values()) > MAX_ENDPOINTS:
            raise Malformed(f"the service has more than {MAX_ENDPOINTS} endpoints")


class Refused(Exception):
    """The API server says no, in a watch or instead of an answer. status: as in HTTP; why: its words.

    retry_after_s: how long it wants to be left alone, 0 if it does not say.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.retry_after_s = 0.0


def refusal(status: int, body: bytes) -> Refused:
    """What an answer with another status than 200 says; its body is a Status, as a rule."""
    try:
        return refused(status, _message(_parsed(body)))
    except Malformed:
        return refused(status, "")


def refused(status: int, why: str) -> Refused:
    """With what helps."""
    if status == 401:
        why = why if why not in ("", "Unauthorized") else "the credentials are not valid, or no longer"
    elif status == 403:
        why += "; grant `get`, `list` and `watch` on endpointslices of discovery.k8s.io in that namespace"
    elif status == 404:
        why += "; discovery.k8s.io/v1 needs Kubernetes 1.21"
    why = why.removeprefix("; ")
    return Refused(status, f"the API server said {status}" + (f": {why}" if why else ""))


def _parsed(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("the API server's answer is no JSON") from None


def _message(status: object) -> str:
    """The words of a Status, made fit for a line of the log."""
    message = status.get("message") if isinstance(status, dict) else None
    if not isinstance(message, str):
        return ""
    return "".join(char if char.isprintable() else " " for char in message[:300])


def _same(one: View, other: View) -> bool:
    return not isinstance(other.answer, Trouble) and _list(one.answer) == _list(other.answer)


def _list(answer: Iterable[Found] | Trouble) -> list[Found]:
    return [] if isinstance(answer, Trouble) else list(answer)
