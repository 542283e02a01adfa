"""Options of the command line."""

import pytest

from benchmarks.balancing.__main__ import make_options, make_parser
from benchmarks.balancing.cases import CASES


def test_by_default_everything_runs_once_and_briefly() -> None:
    options = make_options(make_parser().parse_args([]))
    assert (options.cases, options.repeats, options.seconds) == (tuple(CASES), 1, 10.0)
    assert 0.0 < options.warm_up_s < options.seconds / 2


def test_the_long_form_repeats_at_least_five_times() -> None:
    options = make_options(make_parser().parse_args(["--long"]))
    assert options.repeats >= 5 and options.seconds >= 60.0
    assert make_options(make_parser().parse_args(["--long", "--seconds", "20"])).seconds == 20.0


def test_some_policies_only() -> None:
    options = make_options(make_parser().parse_args(["--policy", "lbproxy_slots,haproxy_slots"]))
    assert options.policies == ("lbproxy_slots", "haproxy_slots")


def test_unknown_cases_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--case", "slots_1,slots_9"])
    assert "slots_9" in capsys.readouterr().err
