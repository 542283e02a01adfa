"""What the domain asks of a source of chance. The composition root passes a `random.Random`, a test a seeded one."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """A source of uniform numbers."""

    def random(self) -> float:
        """The next number, 0.0 <= x < 1.0."""
        ...
