from __future__ import annotations

import gc

from lbproxy.process.tuning import tune_gc, tune_malloc


def test_the_collector_leaves_alone_what_is_there_at_the_start() -> None:
    before, n_frozen = gc.get_threshold(), gc.get_freeze_count()
    there = [[number] for number in range(100)]
    try:
        tune_gc()
        tune_malloc()
        assert gc.get_freeze_count() >= n_frozen + len(there)
        assert gc.get_threshold()[0] > 10_000
    finally:
        gc.unfreeze()
        if n_frozen:  # what tests/conftest.py froze
            gc.freeze()
        gc.set_threshold(*before)
