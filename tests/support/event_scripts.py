"""A stream of events that follows a script, for what reads one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy import _client
from lbproxy._client import AdminError
from lbproxy.address import Address

Script = list[tuple[str, object]]


class Streams:
    """Each call gets the next script; "error" and "interrupt" in it are raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: Script) -> None:
        self.scripts = list(scripts)
        monkeypatch.setattr(_client, "events", self._events)

    def _events(self, address: Address, *, token: str | None, timeout_s: float) -> Iterator[tuple[str, object]]:
        assert self.scripts, "asked once too often"
        for kind, data in self.scripts.pop(0):
            if kind == "error":
                raise AdminError(str(data))
            if kind == "interrupt":
                raise KeyboardInterrupt
            yield kind, data


def lost(why: str) -> tuple[str, object]:
    """The connection ends."""
    return "error", why
