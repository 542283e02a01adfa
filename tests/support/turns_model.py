"""Turns as anybody would write them down: lists that are looked through. What the real ones must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Place = tuple[int, bytes, int]
"""(class, key, number of arrival)"""


@dataclass
class Model:
    """weights: of the classes. waiting: in order of arrival. rings: the keys of each class, in order of their turns."""

    weights: Sequence[int]
    waiting: list[Place] = field(default_factory=list)
    rings: list[list[bytes]] = field(default_factory=list)
    credits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rings = [[] for _ in self.weights]
        self.credits = [0 for _ in self.weights]

    def of(self, rank: int, share: bytes) -> list[Place]:
        return [place for place in self.waiting if place[:2] == (rank, share)]

    def in_class(self, rank: int) -> list[Place]:
        return [place for place in self.waiting if place[0] == rank]

    def add(self, place: Place) -> None:
        if not self.of(place[0], place[1]):
            self.rings[place[0]].append(place[1])
        self.waiting.append(place)

    def drop(self, place: Place) -> None:
        self.waiting.remove(place)
        rank, share, _ = place
        if not self.of(rank, share):
            self.rings[rank].remove(share)
        if not self.in_class(rank):
            self.credits[rank] = 0

    def next(self, *, is_newest_first: bool) -> Place | None:
        """Who is served; it is still here afterwards."""
        some = [rank for rank in range(len(self.weights)) if self.in_class(rank)]
        if not some:
            return None
        rank = max(some, key=lambda rank: (self.credits[rank] + self.weights[rank], -rank))
        if len(some) == 1:
            self.credits[rank] = 0
        else:
            for other in some:
                self.credits[other] += self.weights[other]
            self.credits[rank] -= sum(self.weights[other] for other in some)
        share = self.rings[rank].pop(0)
        self.rings[rank].append(share)
        return self.of(rank, share)[-1 if is_newest_first else 0]

    def making_room(self, rank: int, share: bytes) -> list[Place]:
        """Each of those who may have to go for a newcomer."""
        loads = [
            (len(self.in_class(other)) + (other == rank)) / self.weights[other] for other in range(len(self.weights))
        ]
        worst = rank if loads[rank] == max(loads) else loads.index(max(loads))
        lengths = {key: len(self.of(worst, key)) for key in self.rings[worst]}
        most = max(lengths.values(), default=0)
        if worst == rank and most <= lengths.get(share, 0) + 1:
            return []
        return [self.of(worst, key)[-1] for key, length in lengths.items() if length == most]
