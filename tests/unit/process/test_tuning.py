from __future__ import annotations

import gc

from lbproxy.process.tuning import tune_gc, tune_malloc


def test_the_collector_leaves_alone_what_is_there_at_the_start() -> None:
    before = gc.get_threshold()
    try:
        tune_gc()
        tune_malloc()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] > 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
