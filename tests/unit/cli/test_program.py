"""The command line: which command runs with what, what it prints, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy import __version__, _client, cli
from lbproxy._client import AdminError, Answer
from lbproxy.address import Address
from lbproxy.cli import program
from lbproxy.config import loader
from lbproxy.config.loader import Kept
from lbproxy.config.model import Config
from lbproxy.demo import runner
from lbproxy.process import worker
from lbproxy.process.outside import Outside

GOOD = """\
admin: {bind: "unix:/run/lb.sock", token: s3cret}
listeners:
  - {bind: ":5000", pool: a}
pools:
  a: {servers: ["127.0.0.1:5001-5003"]}
"""
Capture = pytest.CaptureFixture[str]


class Calls:
    """Stands for the functions that do the work; remembers what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configs: list[tuple[Config, str]] = []
        self.plans: list[runner.Plan] = []
        self.asked: list[tuple[Address, str, str | None, float]] = []
        self.answer: Answer | AdminError = Answer(200, b"ready\n")
        monkeypatch.setattr(worker, "run", self._run)
        monkeypatch.setattr(runner, "run", self._demo)
        monkeypatch.setattr(_client, "get", self._get)

    def _run(self, config: Config, _shown: object, *, config_path: str, kept: Kept, outside: Outside) -> int:
        assert outside.arrival is None
        self.configs.append((config, config_path))
        return 1

    def _demo(self, plan: runner.Plan) -> int:
        self.plans.append(plan)
        return 0

    def _get(self, address: Address, path: str, *, token: str | None, timeout_s: float) -> Answer:
        self.asked.append((address, path, token, timeout_s))
        if isinstance(self.answer, AdminError):
            raise self.answer
        return self.answer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.delenv("LBPROXY_ADMIN", raising=False)
    monkeypatch.delenv("LBPROXY_TOKEN", raising=False)
    return Calls(monkeypatch)


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "lb.yaml"
    path.write_text(GOOD)
    return str(path)


def exit_status(argv: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    return ended.value.code


# --- run ---


@pytest.mark.parametrize("argv", [["--config"], ["-c"], ["run", "-c"], ["run", "--config"], ["run"], []])
def test_run_takes_a_file_with_or_without_its_name(argv: list[str], calls: Calls, good: str) -> None:
    assert cli.main([*argv, good]) == 1  # the status of the worker
    [(config, path)] = calls.configs
    assert (path, len(config.pools["a"].servers)) == (good, 3)


def test_run_without_a_file_builds_one_from_its_options(calls: Calls) -> None:
    cli.main(["run", "--to", ":5001", "--to", "10.0.0.2:80", "--to", "unix:/run/app.sock", "--bind", "127.0.0.1:8000"])
    [(config, path)] = calls.configs
    assert path == ""
    assert [str(server.address) for server in config.pools["default"].servers] == [
        "127.0.0.1:5001",
        "10.0.0.2:80",
        "unix:/run/app.sock",
    ]
    assert [listener.bind for listener in config.listeners] == [(Address("127.0.0.1", 8000),)]


def test_run_listens_on_port_5000_unless_told_otherwise(calls: Calls) -> None:
    cli.main(["--to", ":5001"])
    assert calls.configs[0][0].listeners[0].bind[0].port == 5000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run"], "say what to run: a config file, or --to ADDRESS"),
        (["run", "-c", "GOOD", "--to", ":1"], "leave out --to"),
        (["run", "GOOD", "--slots", "3", "--print"], "leave out --slots and --print"),
        (["run", "GOOD", "-c", "GOOD"], "one config file is enough"),
        (["run", "--to", "nonsense"], "command line: --to nonsense: 'nonsense' has no port; write host:port"),
        (["chekc", "GOOD"], "there is no command and no file 'chekc'; did you mean check?"),
        (["start"], "there is no command 'start'; did you mean run?"),
        (["stop"], "there is no command 'stop'; Ctrl-C or SIGTERM (kill PID, systemctl stop lbproxy) stops one"),
        (["restart"], "did you mean reload (its config file is read again) or upgrade"),
    ],
)
def test_run_says_what_it_needs(argv: list[str], words: str, calls: Calls, good: str, capsys: Capture) -> None:
    assert cli.main([good if word == "GOOD" else word for word in argv]) == 2
    assert words in capsys.readouterr().err
    assert calls.configs == []


# --- check, schema, help ---


def test_check_counts_what_is_there(good: str, capsys: Capture) -> None:
    assert cli.main(["check", "-c", good]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{good}: ok (1 listener, 1 pool, 3 servers)\n", "")


@pytest.mark.parametrize("argv", [["check"], ["check", "-c"], ["check", "--config"]])
def test_a_file_may_stand_without_its_option(argv: list[str], good: str, capsys: Capture) -> None:
    assert cli.main([*argv, good]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: ok (")


@pytest.mark.parametrize("argv", [["check", "-"], ["check", "-c", "-"]])
def test_a_dash_is_standard_input(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert cli.main(argv) == 0
    assert capsys.readouterr() == ("<stdin>: ok (1 listener, 1 pool, 3 servers)\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"listeners: 5\npools: {}\n")))
    assert cli.main(argv) == 2
    assert capsys.readouterr().err == "<stdin>:1:12: listeners: expected a list, got 5; did you mean [5]?\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--to", ":1", "--port", "80"], "lbproxy run: error: there is no option --port; did you mean --bind?"),
        (["run", "--backend=:1"], "there is no option --backend; did you mean --to?"),
        (["run", "--bnid", ":1"], "there is no option --bnid; did you mean --bind?"),
        (["-t", "lb.yaml"], "there is no option -t; `lbproxy check FILE` does that"),
        (["status", "--url", ":1"], "lbproxy status: error: there is no option --url; did you mean --admin?"),
        (["status", "--pool", "p"], "there is no option --pool; options: --help, --json, --verbose, --admin,"),
        (["reload", "a", "b"], "lbproxy reload: error: 'b' is one word too many"),
        (["key"], "the following arguments are required: new, NAME"),
        (["completion"], "the following arguments are required: {bash,zsh,fish,"),
    ],
)
def test_an_option_of_another_program_is_told_by_its_name_here(argv: list[str], words: str, capsys: Capture) -> None:
    assert exit_status(argv) == 2
    told = capsys.readouterr().err
    assert words in told
    assert f"usage: lbproxy {argv[0] if argv[0] != '-t' else 'run'} " in told


def test_help_may_be_a_word(capsys: Capture) -> None:
    assert exit_status(["help"]) == 0
    assert "commands:" in capsys.readouterr().out
    assert exit_status(["help", "check"]) == 0
    assert "example: lbproxy check" in capsys.readouterr().out


def test_check_prints_warnings_to_stderr_and_still_succeeds(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(GOOD.replace("servers:", "health_check: {interval: 1s, timeout: 5s}, servers:"))
    assert cli.main(["check", "-c", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: ok (")
    assert err.startswith(f"{path}:5:")
    assert err.endswith("(warning)\n")


def test_every_problem_has_a_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(GOOD.replace("pool: a", "pol: a").replace("5003", "99999"))
    assert cli.main(["check", "-c", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.startswith(f"{path}:") for line in err.splitlines()] == [True, True]


def test_a_file_that_is_not_there_is_a_config_problem(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["check", "-c", str(tmp_path / "none.yaml")]) == 2
    assert str(tmp_path / "none.yaml") in capsys.readouterr().err


REFUSED_OR_OK = (0, 2)


@settings(max_examples=60)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.sampled_from(
                ["listeners:", "pools:", "servers:", "  - ", "bind: ", "pool: a", ":5000", "127.0.0.1:1-9", "[", "]",
                 "{", "}", "'", '"', "&a ", "*a", "<<: ", "\n", "\t", "  ", "a: ", "!!python/name:os ", "!!binary ",
                 "${X}", "${", "2026-01-01", "1e999", "0x1", "-", "null", "off", "\0", "\ufeff", "%YAML 1.1\n", "---\n",
                 "...\n", "? ", ", ", "|\n", ">\n", "# "]
            ),
            max_size=40,
        ).map(lambda words: "".join(words).encode()),
    )
)  # fmt: skip
def test_whatever_is_in_a_file_check_refuses_it_with_words(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file, contextlib.redirect_stderr(io.StringIO()) as said:
        file.write(content)
        file.flush()
        with contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(["check", "-c", file.name])
    assert status in REFUSED_OR_OK, said.getvalue()
    if status:
        assert said.getvalue().startswith(file.name)


@pytest.mark.parametrize("name", ["", "directory", "none/at/all", "nul\0byte", "x" * 5000])
def test_whatever_a_file_is_called_check_refuses_it_with_words(name: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "directory").mkdir()
    assert cli.main(["check", "-c", str(tmp_path / name) if name else ""]) == 2
    assert "defect" not in capsys.readouterr().err


def broken(*arguments: object, **options: object) -> NoReturn:
    raise TypeError("interpreted classes\ncannot inherit from compiled")


@pytest.mark.parametrize("argv", [["check", "-c"], ["run", "-c"], ["-c"], ["status", "-c"], ["demo", "-c"]])
def test_a_defect_is_one_line_that_says_what_to_do(
    argv: list[str], good: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(loader, "load_file", broken)
    monkeypatch.delenv(program.DEBUG, raising=False)
    assert cli.main([*argv, good]) == 1
    [line] = capsys.readouterr().err.splitlines()
    name = argv[0] if len(argv) > 1 else "run"
    assert line.startswith(
        f"lbproxy {name}: this is a defect of lbproxy {__version__}: TypeError: interpreted classes "
    )
    assert "(test_program.py:" in line
    assert line.endswith("please report it, with what the same command prints with LBPROXY_DEBUG=1 set")
    monkeypatch.setenv(program.DEBUG, "1")
    with pytest.raises(TypeError):
        cli.main([*argv, good])


def test_schema_is_json(capsys: Capture) -> None:
    assert cli.main(["schema"]) == 0
    assert "listeners" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str, capsys: Capture) -> None:
    assert exit_status([option]) == 0
    assert capsys.readouterr().out == f"lbproxy {__version__}\n"


@pytest.mark.parametrize("command", ["run", "check", "schema", "demo", "status", "healthcheck"])
def test_every_command_explains_itself_with_an_example(command: str, capsys: Capture) -> None:
    assert exit_status([command, "--help"]) == 0
    assert f"example: lbproxy {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", program.COMMANDS)
def test_the_parser_of_one_command_is_the_one_that_it_has_among_all(command: str) -> None:
    alone, among_all = (
        program.subparser(made, command) for made in (program.build_parser([command]), program.build_parser())
    )
    assert alone.format_help() == among_all.format_help()
    assert [vars(action) | {"container": None} for action in alone._actions[1:]] == [
        vars(action) | {"container": None} for action in among_all._actions[1:]
    ]
    assert (alone._defaults, alone.usage_status) == (among_all._defaults, among_all.usage_status)


def test_a_command_makes_no_parser_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them take 4 ms, of each start and of each probe."""
    made: list[list[str]] = []
    build_parser = program.build_parser

    def build(names: Collection[str] = program.COMMANDS) -> argparse.ArgumentParser:
        made.append([*names])
        return build_parser(names)

    monkeypatch.setattr(program, "build_parser", build)
    assert cli.main(["schema"]) == 0
    assert exit_status(["run", "--help"]) == 0
    assert exit_status(["--help"]) == 0
    assert made == [["schema"], ["run"], [*program.COMMANDS]]


@pytest.mark.parametrize(
    "argv", [["status", "--admin", "8404"], ["status", "--timeout", "0"], ["check", "a.yaml", "b.yaml"]]
)
def test_options_that_do_not_exist_are_status_2(argv: list[str]) -> None:
    assert exit_status(argv) == 2


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["check"]])
def test_bad_usage_is_status_2(argv: list[str]) -> None:
    assert cli.main(argv) == 2


# --- demo ---


def test_the_demo_passes_its_addresses_on(calls: Calls) -> None:
    assert cli.main(["demo", "--servers", "127.0.0.1:6001-6003", "--bind", ":6000", "--admin", ":6004"]) == 0
    assert calls.plans == [runner.Plan("127.0.0.1:6001-6003", Address("127.0.0.1", 6000), Address("127.0.0.1", 6004))]


def test_the_demo_takes_its_addresses_from_a_file(calls: Calls, good: str) -> None:
    assert cli.main(["demo", "-c", good]) == 0
    [plan] = calls.plans
    assert (plan.bind.port, str(plan.admin), plan.config) == (5000, "unix:/run/lb.sock", Path(good))


def test_the_demo_refuses_addresses_beside_a_file(calls: Calls, good: str) -> None:
    assert cli.main(["demo", "-c", good, "--bind", ":1"]) == 2
    assert calls.plans == []


# --- status, healthcheck ---


def test_status_prints_a_table_or_what_the_api_said(calls: Calls, capsys: Capture) -> None:
    calls.answer = Answer(200, b'{"version": "9", "pools": []}')
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out == "lbproxy 9: ready\n"
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": "9", "pools": []}
    assert [(str(address), path) for address, path, _, _ in calls.asked] == [("127.0.0.1:8404", "/api/v1/status")] * 2


def test_who_is_asked(calls: Calls, good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBPROXY_ADMIN", ":7000")
    monkeypatch.setenv("LBPROXY_TOKEN", "from-env")
    cli.main(["healthcheck", "--admin", "0.0.0.0:7001", "--token", "typed", "--timeout", "2s"])
    cli.main(["healthcheck", "-c", good])
    monkeypatch.delenv("LBPROXY_ADMIN")
    monkeypatch.delenv("LBPROXY_TOKEN")
    cli.main(["healthcheck", "-c", good])
    cli.main(["healthcheck", "--live"])
    assert [(str(address), path, token, timeout) for address, path, token, timeout in calls.asked] == [
        ("127.0.0.1:7001", "/readyz", "typed", 2.0),
        ("127.0.0.1:7000", "/readyz", "from-env", 5.0),
        ("unix:/run/lb.sock", "/readyz", "s3cret", 5.0),
        ("127.0.0.1:8404", "/healthz", None, 5.0),
    ]


def test_healthcheck_tells_ready_from_not_ready(calls: Calls, capsys: Capture) -> None:
    assert cli.main(["healthcheck"]) == 0
    assert capsys.readouterr() == ("ready\n", "")
    calls.answer = Answer(503, b"draining\n")
    assert cli.main(["healthcheck"]) == 1
    assert capsys.readouterr() == ("", "draining\n")


def test_healthcheck_never_ends_with_2(calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert cli.main(["healthcheck", "-c", "/none.yaml"]) == 1
    monkeypatch.setenv("LBPROXY_ADMIN", "nonsense")
    assert cli.main(["healthcheck"]) == 1
    assert "LBPROXY_ADMIN" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--nonsense", "--timeout=never", "--admin=8404", "--live=1"])
def test_a_healthcheck_with_bad_options_is_unhealthy(option: str, calls: Calls, capsys: Capture) -> None:
    assert exit_status(["healthcheck", option]) == 1
    assert "error: " in capsys.readouterr().err


def test_no_answer_is_a_failure_with_one_sentence(calls: Calls, capsys: Capture) -> None:
    calls.answer = AdminError("nothing listens on 127.0.0.1:8404")
    assert cli.main(["status"]) == 1
    assert cli.main(["healthcheck"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "lbproxy status: nothing listens on 127.0.0.1:8404",
        "nothing listens on 127.0.0.1:8404",
    ]
