"""Heads that somebody made to be dear, a million of them and none twice: the memory of lbproxy stays what it was.

They come over connections that are kept, eight requests at once; a head that is refused ends its connection.
"""

from __future__ import annotations

import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final

from benchmarks.micro.hostile import HOSTILE
from tests.support.daemon import LbProxy
from tests.support.open_loop import Servers

CLIENTS: Final = 2
AT_ONCE: Final = 8
MOST_DRIFT: Final = 0.05
_END: Final = b"\r\n\r\n"
_REFUSED: Final = "refused at the last of 90 new"


@dataclass(slots=True)
class Report:
    """counts: answers, by status. rss: bytes at rest, after each tenth of the heads."""

    heads: int
    counts: Counter[int] = field(default_factory=Counter)
    rss: list[int] = field(default_factory=list)

    @property
    def drift(self) -> float:
        """Growth of the memory since the first tenth, as a share of what it was."""
        return self.rss[-1] / self.rss[0] - 1.0

    def lines(self) -> list[str]:
        sizes = ", ".join(f"{size / 2**20:.1f}" for size in self.rss)
        answers = ", ".join(f"{count} with {status}" for status, count in sorted(self.counts.items()))
        return [
            f"hostile heads: {self.heads}, answered {answers}; MiB after each tenth: {sizes} ({self.drift:+.1%} since "
            "the first)"
        ]

    def complaints(self) -> list[str]:
        """What must not be."""
        found = [f"memory grew by {self.drift:.1%}"] if self.drift > MOST_DRIFT else []
        if set(self.counts) - {200, 400, 431}:
            found.append(f"answers {dict(self.counts)}")
        return found


def run(directory: Path, *, heads: int, seed: int) -> Report:
    """Raises AssertionError if lbproxy counts an error of its own."""
    report = Report(heads)
    with Servers(1, 0.0) as servers, LbProxy(_config(servers.addresses), directory) as lb:
        for tenth in range(10):
            with ThreadPoolExecutor(CLIENTS) as threads:
                shares = threads.map(
                    _attack,
                    repeat(lb.port("http")),
                    repeat(heads // 10 // CLIENTS),
                    (f"{seed} {tenth} {number}" for number in range(CLIENTS)),
                )
                for counts in shares:
                    report.counts.update(counts)
            lb.check_idle()
            report.rss.append(lb.rss_bytes())
        assert not lb.metric("internal_errors_total"), lb.stderr[-4000:]
    return report


def _config(servers: list[str]) -> dict[str, object]:
    return {
        "listeners": [{"name": "http", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": servers, "health_check": "off"}},
    }


def _attack(port: int, heads: int, seed: str) -> Counter[int]:
    """So many heads, or a few more; statuses of the answers."""
    rng = random.Random(seed)
    kinds = [make for name, make in HOSTILE.items() if name != _REFUSED]
    counts: Counter[int] = Counter()
    sock: socket.socket | None = None
    while counts.total() < heads:
        is_refused = rng.random() < 0.02
        if sock is None:
            sock = socket.create_connection(("127.0.0.1", port), timeout=60.0)
        made = [HOSTILE[_REFUSED](rng)] if is_refused else [rng.choice(kinds)(rng) for _ in range(AT_ONCE)]
        sock.sendall(b"".join(made))
        statuses, is_over = _answers(sock, len(made))
        counts.update(statuses)
        if is_over:
            sock.close()
            sock = None
    if sock is not None:
        sock.close()
    return counts


def _answers(sock: socket.socket, count: int) -> tuple[list[int], bool]:
    """The statuses of so many answers, or of fewer if the connection ends; and whether it is going to."""
    data = b""
    while True:
        heads = data.split(_END)[:-1]
        statuses = [int(head.rpartition(b"HTTP/1.1 ")[2][:3]) for head in heads if b"HTTP/1.1 " in head]
        is_over = any(status >= 400 for status in statuses)
        if len(statuses) >= count or is_over:
            return statuses, is_over
        more = sock.recv(65536)
        if not more:
            return statuses, True
        data += more
