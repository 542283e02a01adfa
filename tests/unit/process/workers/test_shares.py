from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.process.workers.shares import part_of, share_of


def config(limits: str) -> Config:
    return load_text(
        f"limits: {limits}\nlisteners: [{{bind: ':1', pool: p}}]\npools: {{p: {{servers: ['127.0.0.1:2']}}}}\n",
        "lb.yaml",
        {},
    ).config


@pytest.mark.parametrize("n_workers", [2, 3, 7])
@pytest.mark.parametrize("whole", [7, 100, 1001])
def test_the_parts_are_the_whole_and_even(whole: int, n_workers: int) -> None:
    parts = [part_of(whole, slot, n_workers) for slot in range(n_workers)]
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


def test_limits_of_the_whole_process_are_divided() -> None:
    whole = config("{connections: 101, buffered_bytes: 65MiB}")
    limits = [share_of(whole, slot, 2).limits for slot in range(2)]
    assert [item.buffered_bytes for item in limits] == [65 << 19, 65 << 19]
    assert [item.connections for item in limits] == [101, 101], "they lend each other places"
