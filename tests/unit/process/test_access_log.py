"""The access log's output, and what is known of lost lines when it becomes another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.model import AccessLog
from lbproxy.config.problems import Unusable
from lbproxy.process.access_log import AccessLogs, open_access_log
from tests.support.fake_transport import FakeWriter


class Losing(FakeWriter):
    def __init__(self, dropped: int) -> None:
        super().__init__()
        self.n_dropped = dropped

    @property
    def dropped(self) -> int:
        return self.n_dropped


def test_a_log_that_is_off_has_no_writer() -> None:
    assert open_access_log(None) is None


def test_a_place_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "access.log")
    with pytest.raises(Unusable) as error:
        open_access_log(AccessLog(path=path))
    assert error.value.path == ("access_log", "path") and str(error.value).startswith(f"cannot open {path}: ")


def test_lost_lines_are_counted_over_all_outputs() -> None:
    logs = AccessLogs(None)
    assert logs.dropped == 0
    first, second = Losing(3), Losing(4)
    assert logs.use(first) is None and logs.dropped == 3
    assert logs.use(second) is first and logs.dropped == 7
    assert logs.use(None) is second and logs.dropped == 7
