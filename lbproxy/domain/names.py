"""Host names among the servers of a pool: what is known of each, for people and for the number of servers that lack."""

from __future__ import annotations

from typing import Final

NOT_LOOKED_UP: Final = "not looked up yet"


class Name:
    """One host name of a pool.

    servers: the names of the configured servers whose address it is (a range of ports is several). n_addresses: of the
    last good answer, which stays in use; 0 means unresolved. why: what is wrong with the last look-up, "" if nothing.
    changed_at: monotonic seconds of the last change of `why` or of the number of addresses.
    """

    __slots__ = ("changed_at", "host", "n_addresses", "servers", "why")

    def __init__(self, host: str, now: float) -> None:
        self.host = host
        self.servers: tuple[str, ...] = ()
        self.n_addresses = 0
        self.why = NOT_LOOKED_UP
        self.changed_at = now

    @property
    def is_unresolved(self) -> bool:
        """It has never had an address, so the pool lacks its servers."""
        return not self.n_addresses

    def failed(self, why: str, now: float) -> bool:
        """A look-up failed. True if that is news."""
        if why == self.why:
            return False
        self.why = why
        self.changed_at = now
        return True

    def answered(self, n_addresses: int, now: float) -> bool:
        """A look-up brought this many addresses, at least one. True if the one before it failed."""
        was_wrong = bool(self.why)
        if was_wrong or n_addresses != self.n_addresses:
            self.changed_at = now
        self.why = ""
        self.n_addresses = n_addresses
        return was_wrong
