"""Who made a call at the admin address; not in access.py, since `lbproxy check` need not import an HTTP server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call. token: the name of the token that it sent, "" if none. peer: an IP address or "unix"."""

    token: str
    peer: str

    def __str__(self) -> str:
        where = "the unix socket" if self.peer == "unix" else self.peer
        return f"{self.token} from {where}" if self.token else where
