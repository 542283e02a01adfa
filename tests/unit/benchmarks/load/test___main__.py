"""Options of the command line."""

import pytest

from benchmarks.load.__main__ import make_options, make_parser
from benchmarks.load.cases import CASES


def test_by_default_everything_runs_against_everybody() -> None:
    options = make_options(make_parser().parse_args([]))
    assert options.cases == tuple(CASES)
    assert options.targets == (
        "lbproxy",
        "haproxy",
        "nginx",
        "haproxy_tuned",
        "nginx_tuned",
        "lbproxy_full",
        "lbproxy_bare",
    )
    assert options.rounds >= 3


def test_a_subject_is_not_its_own_peer() -> None:
    options = make_options(make_parser().parse_args(["--subject", "nginx", "--peers", "haproxy,nginx"]))
    assert options.targets == ("nginx", "haproxy")


def test_no_peers() -> None:
    assert make_options(make_parser().parse_args(["--peers", ""])).targets == ("lbproxy",)


@pytest.mark.parametrize(
    "argv", [["--case", "http_smal"], ["--case", ""], ["--peers", "apache"], ["--rounds", "0"], ["--seconds", "x"]]
)
def test_nonsense_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(argv)
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err
