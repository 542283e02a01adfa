"""Splits of routes, as operators see and change them while traffic flows.

A live share stands until it is given back (`"file"`), the config file gives the split other shares, or the split or one
of its pools is no more. It outlives a reload that leaves the split alone, also if its route moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from lbproxy.config.body_rules import SHARE
from lbproxy.control.caller import Caller
from lbproxy.control.event_log import EventLog
from lbproxy.control.live import NotThere
from lbproxy.control.live_values import FILE, Change, Refused
from lbproxy.control.status import Json
from lbproxy.domain.splitting import MOST_SHARE, Split

log = logging.getLogger(__name__)

SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class SplitPlace:
    """A split in force. position: of its route, name: the route's, None if it has none. told: what the route is known
    by: its name, or what it matches."""

    listener: str
    position: int
    name: str | None
    told: str
    split: Split

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """What is the same before and after a reload or a restart."""
        return self.listener, self.told, self.split.names

    @property
    def route(self) -> str:
        """The route's name, or its position."""
        return self.name if self.name is not None else str(self.position)

    def __str__(self) -> str:
        return f"{self.listener}/{self.route}"


@dataclass(frozen=True, slots=True)
class LiveShares:
    """Shares that an operator set. at: monotonic seconds. given: what stands in the file."""

    by: str
    at: float
    shares: tuple[int, ...]
    given: tuple[int, ...]


class SplitControl:
    """places: the splits in force. clock: monotonic seconds. changed: called when `records` is another than before."""

    def __init__(
        self,
        places: Callable[[], Collection[SplitPlace]],
        clock: Callable[[], float],
        events: EventLog,
        changed: Callable[[], None],
    ) -> None:
        self._places = places
        self._clock = clock
        self._events = events
        self._changed = changed
        self._live: dict[tuple[str, str, tuple[str, ...]], LiveShares] = {}

    def find(self, listener: str, route: str) -> SplitPlace:
        """route: its name, or its position. Raises NotThere."""
        places = list(self._places())
        for place in places:
            if place.listener == listener and route in (place.name, str(place.position)):
                return place
        asked, known = f"{listener}/{route}", [str(place) for place in places]
        close = get_close_matches(asked, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"splits: {', '.join(known[:SHOWN]) or 'none'}"
        raise NotThere(f"there is no split {asked}; {hint}")

    # --- change -----------------------------------------------------------------------------------------------------

    def change(self, place: SplitPlace, wanted: object, caller: Caller) -> dict[str, Change]:
        """Set shares: by the names of pools, those that are not named stay; or all as in the file. What is the same
        already is left out of the answer. Raises Refused."""
        split, now = place.split, self._clock()
        before = split.shares()
        after = split.given if wanted == FILE else self._read(split, wanted)
        if after == split.given:
            split.set(())
            self._live.pop(place.key, None)
        else:
            split.set(after)
            if after != before or place.key not in self._live:
                self._live[place.key] = LiveShares(str(caller), now, after, split.given)
        changes = {
            name: Change(old, new) for name, old, new in zip(split.names, before, after, strict=True) if old != new
        }
        if changes:
            told = ", ".join(f"{name}: {change}" for name, change in changes.items())
            log.info("listener %s: split of route %s: %s, by %s", place.listener, place.route, told, caller)
            self._tell(place, told, str(caller), before, after)
        return changes

    def _read(self, split: Split, wanted: object) -> tuple[int, ...]:
        if not isinstance(wanted, dict) or not wanted:
            raise Refused([f'shares: expected {{POOL: share, ...}} or "file"; pools: {", ".join(split.names)}'])
        problems = []
        after = dict(zip(split.names, split.shares(), strict=True))
        for name, share in wanted.items():
            if name not in after:
                problems.append(f"shares: the split has no pool {name:.64}; pools: {', '.join(split.names)}")
                continue
            try:
                value = SHARE.parse(share)
            except ValueError as error:
                problems.append(f"shares: {name}: {error}")
            else:
                assert isinstance(value, int)
                after[name] = value
        if not problems and not any(after.values()):
            problems.append("shares: no pool would have one; one of them must be above 0")
        if problems:
            raise Refused(problems)
        return tuple(after.values())

    def _tell(self, place: SplitPlace, told: str, by: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        names = place.split.names
        self._events.add(
            "live",
            f"split {place}: {told}",
            by=by,
            old=dict(zip(names, before, strict=True)),
            new=dict(zip(names, after, strict=True)),
        )
        self._changed()

    # --- the file, and other processes --------------------------------------------------------------------------------

    def adopt(self) -> None:
        """There are other splits in force, perhaps: what the file says anew stands over what was set before."""
        places = {place.key: place for place in self._places()}
        for key, live in list(self._live.items()):
            place = places.get(key)
            if place is None:
                del self._live[key]
                log.info(
                    "listener %s: the split of %s is no more, nor are its shares, set by %s", key[0], key[1], live.by
                )
                self._changed()
            elif place.split.given != live.given:
                del self._live[key]
                before = place.split.shares()
                place.split.set(())
                told = f"the file gives it other shares now, which stand over those set by {live.by}"
                log.info("listener %s: split of route %s: %s", place.listener, place.route, told)
                self._tell(place, told, "the config file", before, place.split.given)

    def records(self) -> Mapping[tuple[str, str, tuple[str, ...]], LiveShares]:
        """What operators have set, by `SplitPlace.key`."""
        return self._live

    def keep(self, key: tuple[str, str, tuple[str, ...]], live: LiveShares, event: str) -> bool:
        """Another process knew this; the file's shares must be what they were then. False: there is no such split."""
        place = next((place for place in self._places() if place.key == key), None)
        if place is None:
            return False
        split = place.split
        if split.given != live.given:
            log.info("split %s: the file gives it other shares now, which stand over those set by %s", place, live.by)
        elif self._is_good(live.shares, split):
            split.set(live.shares)
            self._live[key] = live
            told = ", ".join(f"{name} {share}" for name, share in zip(split.names, live.shares, strict=True))
            log.info("split %s: %s, as set before %s by %s", place, told, event, live.by)
        return True

    def _is_good(self, shares: tuple[int, ...], split: Split) -> bool:
        return len(shares) == len(split.names) and all(0 <= share <= MOST_SHARE for share in shares) and any(shares)

    def give_back(self, key: tuple[str, str, tuple[str, ...]]) -> None:
        """An operator has given it back to the file, in another process."""
        if self._live.pop(key, None) is not None:
            for place in self._places():
                if place.key == key:
                    place.split.set(())

    # --- what is told -------------------------------------------------------------------------------------------------

    def told(self) -> list[Json]:
        """All of them, for the status. route: position. file: the shares there; live: who set those in force."""
        return [self.told_of(place) for place in self._places()]

    def told_of(self, place: SplitPlace) -> Json:
        split, live = place.split, self._live.get(place.key)
        shares = split.shares()
        total = sum(shares)
        return {
            "listener": place.listener,
            "route": place.position,
            "name": place.name,
            "match": place.told if place.name is None else None,
            "by": split.key.text if split.key is not None else None,
            "pools": [
                {"pool": name, "share": share, "ratio": round(share / total, 6), "file": given}
                for name, share, given in zip(split.names, shares, split.given, strict=True)
            ],
            "live": None if live is None else {"by": live.by, "since": round(self._clock() - live.at, 3)},
        }

    def ratios(self) -> list[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_split_share_ratio."""
        return [
            ((place.listener, place.route, name), share / sum(shares))
            for place in self._places()
            for shares in (place.split.shares(),)
            for name, share in zip(place.split.names, shares, strict=True)
        ]
