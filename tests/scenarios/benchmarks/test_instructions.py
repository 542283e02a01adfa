"""The path of every request needs no more instructions than are recorded, which does not depend on other load."""

from __future__ import annotations

import warnings

import pytest

from benchmarks.instructions.__main__ import RECORDED
from benchmarks.instructions.counting import Missing, NotCompiled, count, read_environment
from benchmarks.instructions.kinds import KINDS, TCP
from benchmarks.instructions.verdict import from_json, judge, render
from tests.support import build
from tests.support.servers import missing, needed


class RecordAnew(UserWarning):
    """The record is of other versions, or of code that needed more."""


@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.filterwarnings("default::UserWarning")  # pytest prints it at the end; it is no failure
def test_no_request_takes_more_instructions_than_recorded() -> None:
    needed("valgrind")
    try:
        environment, counted = read_environment(), count()
    except NotCompiled as error:
        pytest.skip(str(error))
    except Missing as error:
        missing(str(error))
    assert tuple(counted) == KINDS
    for kind, found in counted.items():
        # Else the names below would say nothing.
        end = "session.TcpSession._done" if kind == TCP else "exchange.Exchange._finish"
        assert end in found.with_python, kind
        assert 0 < found.own < found.total, kind
    record = from_json(RECORDED.read_text())
    verdicts = judge(record, counted, environment)
    text = "\n".join(filter(None, [build.what_is_wrong(), render(verdicts, record, environment)]))
    assert not any(verdict.is_rise for verdict in verdicts), text
    if environment != record.environment or any(verdict.is_fall for verdict in verdicts):
        warnings.warn(RecordAnew(text), stacklevel=1)
