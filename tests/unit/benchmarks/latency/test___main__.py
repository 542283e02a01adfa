"""Options of the command line."""

from __future__ import annotations

import pytest

from benchmarks.latency.__main__ import make_options, make_parser


def test_by_default_half_and_four_fifths_against_haproxy() -> None:
    options = make_options(make_parser().parse_args([]))
    assert options.targets == ("lbproxy", "haproxy")
    assert options.shares == (0.5, 0.8)
    assert options.rounds >= 5
    assert 0 < options.warm_up_s < options.seconds


@pytest.mark.parametrize("argv", [["--percent", "0"], ["--percent", "101"], ["--targets", "x"], ["--seconds", "0"]])
def test_nonsense_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(argv)
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err
