"""Which scenarios run with two workers besides one, and which do not, each with the reason.

What a client sees must be the same however many workers there are. So of these files each test runs twice, unless its
statement is about one process, or it takes long and workers have nothing to do with it.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

N_WORKERS: Final = (1, 2)
NAMES: Final = ("alone", "two workers")

FILES: Final = ("tests/scenarios/resilience/test_*.py", "tests/scenarios/e2e/test_stop.py")

_TURNS: Final = "an exact turn: each worker has its own, and over all of them servers get the same share"
_LEARNED: Final = "looks at once at what a worker has learned; it is told to the others within half a second"
_SEEN: Final = "asks at once; what one worker has seen is told within a second (workers/test_shared_pools.py)"
_OWN: Final = "counts the connections that one process needs to learn, or waits for; each worker has its own"
ONCE: Final = {
    "test_chaos.py": "it starts tests/soak, which has a form with workers of its own (workers/test_chaos.py)",
    "test_fair_reload.py": "has both by itself, and reloads in each",
    "test_gunicorn.py": "as test_chaos.py",
    "test_host_pauses.py": "the one process is stopped; a worker that is, is in workers/test_supervisor.py",
    "test_kinds.py": "presets of the config; each worker reads the same",
    "test_names.py": "the controller resolves and waits; how workers hear of servers: workers/test_shared_pools.py",
    "test_no_cycles.py": "looks into the one process with gc",
    "test_slow_start.py": "each worker ramps up by itself, and a ramp takes seconds",
    "test_uwsgi.py": "about what uWSGI does with connections, which are each worker's own",
    "test_deadline.py::test_who_would_be_late_is_refused_at_once": _SEEN,
    "test_deadline.py::test_those_before_it_count_where_the_order_is_fifo": _SEEN,
    "test_fail_open.py::test_when_checks_fail_everywhere_they_are_not_believed": _TURNS,
    "test_fail_open.py::test_a_share_is_the_limit_at_which_checks_are_no_longer_believed": _TURNS,
    "test_kept_connections.py::test_a_server_s_idle_time_out_is_learned": _LEARNED,
    "test_kept_connections.py::test_an_idle_time_out_of_200_ms_is_learned": _LEARNED,
    "test_kept_connections.py::test_a_time_out_is_learned_from_waves": _OWN,
    "test_kept_connections.py::test_what_a_server_announces_is_shown": _LEARNED,
    "test_kept_connections.py::test_a_server_that_closes_after_each_answer_without_a_word": _OWN,
    "test_kept_connections.py::test_many_clients_of_servers_that_close_after_each_answer": _OWN,
    "test_kept_connections.py::test_posts_at_awkward_intervals_are_answered_and_executed_once": _OWN,
    "test_pressure.py::test_refusing_shows_in_readyz_in_the_log_and_in_the_gauge": (
        "fills one process; each worker has its part of limits.buffered_bytes, and one client fills one worker"
    ),
}
"""Files, or tests, by name."""


def runs_twice(path: PurePath, function: str) -> bool:
    """path: of a test file, relative to the root of the project."""
    return (
        any(path.match(pattern) for pattern in FILES)
        and path.name not in ONCE
        and f"{path.name}::{function}" not in ONCE
    )
