"""Requests that came one after the other, and the order in which they may be served: over several workers that of
arrival to within 10 ms."""

from __future__ import annotations

from typing import Final

NEAR_S: Final = 0.01


class Arrivals:
    """When each was sent, and when it was seen to have arrived."""

    def __init__(self) -> None:
        self._sent: dict[str, float] = {}
        self._seen: dict[str, float] = {}

    def came(self, target: str, sent_at: float, seen_at: float) -> None:
        self._sent[target], self._seen[target] = sent_at, seen_at

    def check(self, served: list[str]) -> None:
        """All were served, and nobody before one that had certainly been there for 10 ms when it came."""
        assert sorted(served) == sorted(self._sent)
        for place, target in enumerate(served):
            overtaken = [older for older in served[place + 1 :] if self._sent[target] - self._seen[older] >= NEAR_S]
            assert not overtaken, f"{target} was served before {overtaken}: {served}"
