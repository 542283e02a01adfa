"""What came of a request's body, for whoever sends it to a server: once, once more after a failure, or two at a time.

    kept       all of it, since the first byte: another follower may begin
    dropped    nothing any more: followers that are under way get what comes, and nobody can begin

Each follower begins with all that is kept (`content`), and is given the rest as it comes. The copy is dropped when it
is more than a retry may have, when memory is short (pressure.py), or when nobody will need it any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.pieces import add_piece
from lbproxy.dataplane.pressure import COUNTED_FROM, Pressure
from lbproxy.protocol.message import Field


@mypyc_attr(allow_interpreted_subclasses=True)
class Follower:
    """Who sends the body to a server. is_behind: it did not take yet what is kept, and will."""

    __slots__ = ("is_behind", "next_follower")

    def __init__(self) -> None:
        self.is_behind = True
        self.next_follower: Follower | None = None

    def body_came(self, data: bytes, *, is_done: bool) -> None:
        """More of it, or only its end; who is behind finds it in `content` as well."""
        raise NotImplementedError

    def unsent_bytes(self) -> int:
        """How much of what it took has not left this process."""
        raise NotImplementedError


@mypyc_attr(free_list_len=1)
class BodyTape:
    """See the module. kept: bytes. is_whole: its last byte came. trailers: the fields that came behind that, for every
    follower; they are no part of the copy that may be dropped, since the client's end bounds them."""

    __slots__ = ("_first", "_followers", "_pieces", "_pressure", "is_dropped", "is_whole", "kept", "trailers")

    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure
        self._first = b""  # all that is kept, mostly
        self._pieces: list[bytes] | None = None  # if there is more than that: all of it
        self._followers: Follower | None = None  # a chain: usually there is one, and it costs nothing
        self.kept = 0
        self.is_whole = self.is_dropped = False
        self.trailers: Sequence[Field] = ()

    def add(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """More came, or only its end."""
        self.is_whole = is_done
        self.trailers = trailers
        if len(data) and not self.is_dropped:
            if self._pieces is not None:
                add_piece(self._pieces, data)
            elif self.kept:
                self._pieces = [self._first]
                self._first = b""
                add_piece(self._pieces, data)
            else:
                self._first = data
            self.kept += len(data)
            if self.kept > COUNTED_FROM:
                self._pressure.copy_grew(self, self.kept)
        if self._followers is not None:
            for follower in self._all():
                follower.body_came(data, is_done=is_done)

    def content(self) -> bytes:
        """All that is kept."""
        pieces = self._pieces
        return self._first if pieces is None else b"".join(pieces)

    def drop(self) -> None:
        """Let go of the copy: nobody can begin any more."""
        if self.kept > COUNTED_FROM:
            self._pressure.copy_gone(self)
        self._first = b""
        self._pieces = None
        self.kept = 0
        self.is_dropped = True

    def drop_beyond(self, limit: int) -> None:
        """It was sent: let go of a copy of more than `limit` bytes, unless somebody else has yet to begin."""
        if self.kept > limit and not self._is_needed():
            self.drop()

    # --- followers --------------------------------------------------------------------------------------------------

    def follow(self, follower: Follower) -> None:
        """From now on it hears of what comes, until `leave`."""
        follower.next_follower = self._followers
        self._followers = follower

    def leave(self, follower: Follower) -> None:
        """It hears no more. Whoever does not follow may leave, too."""
        if self._followers is follower:
            self._followers = follower.next_follower
        else:
            for other in self._all():
                if other.next_follower is follower:
                    other.next_follower = follower.next_follower
        follower.next_follower = None

    def _all(self) -> list[Follower]:
        found = []
        follower = self._followers
        while follower is not None:
            found.append(follower)
            follower = follower.next_follower
        return found

    def _is_needed(self) -> bool:
        follower = self._followers
        while follower is not None:
            if follower.is_behind:
                return True
            follower = follower.next_follower
        return False

    # --- memory (pressure.Holder) -----------------------------------------------------------------------------------

    def spare_bytes(self) -> int:
        """What `give_up_spare` frees: it is with a server, and is kept in case it must be sent again."""
        if self._followers is None or self._is_needed():
            return 0
        return self.kept - max(follower.unsent_bytes() for follower in self._all())

    def give_up_spare(self) -> None:
        """Memory is short: this request can't be repeated any more."""
        self.drop()
