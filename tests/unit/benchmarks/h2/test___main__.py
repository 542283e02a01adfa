"""The command line."""

from __future__ import annotations

import pytest

from benchmarks.h2.__main__ import make_parser
from benchmarks.h2.cases import CASES


def test_all_cases_unless_some_are_named() -> None:
    assert make_parser().parse_args([]).case == tuple(CASES)
    args = make_parser().parse_args(["--case", "grpc_1x32,file_h1", "--rounds", "5", "--seconds", "2"])
    assert (args.case, args.rounds, args.seconds) == (("grpc_1x32", "file_h1"), 5, 2)


def test_a_case_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--case", "h3"])
    assert "'h3' is not one of" in capsys.readouterr().err
