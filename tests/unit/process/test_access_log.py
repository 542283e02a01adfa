"""The access log's output, and what is known of lost lines when it becomes another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.model import AccessLog, Config
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
    logs = AccessLogs(None, None)
    assert logs.dropped == 0
    first, second = Losing(3), Losing(4)
    assert logs.use(first, config()) is None and logs.dropped == 3
    assert logs.use(second, config()) is first and logs.dropped == 7
    assert logs.use(second, config()) is None and logs.dropped == 7
    assert logs.use(None, config(access_log="off")) is second and logs.dropped == 7


def test_the_last_lines_are_kept_while_the_config_says_the_same_of_them() -> None:
    first, second = Losing(0), Losing(0)
    logs = AccessLogs(first, config())
    kept = logs.recent
    assert kept is not None and first.recent is kept and logs.format == "json"
    logs.use(second, config())
    assert second.recent is kept, "in another file, too"
    logs.use(second, config(access_log={"format": "common"}))
    assert logs.recent is None and second.recent is None and logs.format == "common"
    logs.use(second, config())
    assert logs.recent is not None and logs.recent is not kept
    for nobody in (config(admin={"recent": 0}), config(admin="off"), config(access_log="off")):
        logs.use(second, nobody)
        assert logs.recent is None


def config(**more: object) -> Config:
    return Config.model_validate(
        {"listeners": [{"bind": "127.0.0.1:1", "pool": "p"}], "pools": {"p": {"servers": ["127.0.0.1:2"]}}, **more}
    )
