"""A protocol object that reads in the place of another one for a while, into a buffer of its own size."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Owner(Protocol):
    """Who is stood in for: an asyncio.Protocol. It hears of everything but what is read."""

    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class StandIn(asyncio.BufferedProtocol):
    """Subclasses say where to read to (`get_buffer`) and what becomes of it (`buffer_updated`)."""

    __slots__ = ("_hears",)

    def __init__(self, owner: Owner) -> None:
        self._hears = owner

    def eof_received(self) -> bool:
        return self._hears.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hears.connection_lost(exc)

    def pause_writing(self) -> None:
        self._hears.pause_writing()

    def resume_writing(self) -> None:
        self._hears.resume_writing()
