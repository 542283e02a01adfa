"""Upgrades of several workers under load, to as many, fewer and more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.process.upgrade.test_upgrade_load import check_upgrades
from tests.support.origin import Origin


@pytest.mark.slow
def test_nothing_in_flight_is_hurt_whatever_the_number_of_workers(tmp_path: Path) -> None:
    with Origin() as short, Origin() as long:
        check_upgrades((short, long), tmp_path, [2, 2, 1, 2])
