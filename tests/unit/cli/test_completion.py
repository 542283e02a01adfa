"""The scripts for shells: they know every command and option there is, and quote what stands in them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping

import pytest

from lbproxy import _client, cli
from lbproxy.address import parse_address
from lbproxy.cli import asking
from lbproxy.cli.completion import FILES, SHELLS, Option, Value, Words, commands, names, script, with_line, words_of
from lbproxy.cli.program import build_parser

STATUS = {
    "listeners": [{"name": "in"}],
    "pools": [{"name": "p", "servers": [{"name": "a:1"}, {"name": "b"}]}, {"name": "q", "servers": []}],
}


def sections(shell: str, text: str) -> Callable[[str], str]:
    """What a script says of a command."""

    def of(name: str) -> str:
        if shell == "bash":
            return re.split(r"(?m)^ {8}\S", text.partition(f"\n        {name})\n")[2])[0].replace('"', " ")
        if shell == "zsh":
            return text.partition(f"\n                {name}) _arguments")[2].partition(" ;;\n")[0]
        return "\n".join(line for line in text.splitlines() if f"__lbproxy_command {name}'" in line)

    return of


def written(shell: str, option: str) -> str:
    """An option as the script has it."""
    if shell == "fish":
        return f" -l {option[2:]} " if option.startswith("--") else f" -s {option[1:]} "
    return f"*{option}[" if shell == "zsh" else f" {option} "


@pytest.mark.parametrize("shell", SHELLS)
def test_no_command_and_no_option_is_forgotten(shell: str) -> None:
    parser = build_parser()
    text = script(shell, parser)
    of = sections(shell, text)
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert len(action.choices) > 10
    for name, command in action.choices.items():
        told = of(name).replace("=[", "[")
        for option in [option for item in command._actions for option in item.option_strings]:
            assert written(shell, option) in told, (name, option)
    for option in ("-h", "--help", "-V", "--version"):
        assert written(shell, option) in text.replace('"', " ")


@pytest.mark.parametrize("shell", SHELLS)
def test_an_option_that_is_new_is_there(shell: str) -> None:
    parser = argparse.ArgumentParser(prog="lbproxy")
    added = parser.add_subparsers().add_parser("fly", help="it's [new]: really")
    added.add_argument("--how-high", metavar="low|high", help="don't: [fall]")
    text = script(shell, parser)
    told = sections(shell, text)("fly")
    assert written(shell, "--how-high") in told.replace("=[", "[")
    assert "low high" in told
    if shell == "fish":
        assert "-d 'don\\'t: [fall]'" in told
    if shell == "zsh":
        assert """'*--how-high=[don'"'"'t\\: \\[fall\\]]: :(low high)'""" in told


def test_what_may_stand_where() -> None:
    found = {command.name: command for command in commands(build_parser())}
    assert found["drain"].values == (Value("servers"),)
    assert found["add"].values == (Value("pools"),)
    assert found["limit"].values == (Value("servers"), Value(words=("off", "file")))
    assert found["check"].values == (Value(FILES),)
    assert found["schema"].values == ()
    options = {name: option for command in found.values() for option in command.options for name in option.names}
    assert options["--config"].value == Value(FILES)
    assert options["--listener"].value == Value("listeners")
    assert options["--json"].value is None
    run = {option.names[-1]: option.value for option in found["run"].options}
    assert run["--mode"] == Value(words=("http", "tcp"))
    assert run["--health"] == Value(words=("off", "tcp"))
    strategies = run["--strategy"]
    assert strategies is not None and "peak_ewma" in strategies.words


def test_one_parser() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-x", "--extra", choices=["1", "2"], help="h")
    parser.add_argument("word", nargs="*")
    assert words_of("n", "t", parser) == Words(
        "n", "t", (Option(("-x", "--extra"), "h", Value(words=("1", "2"))),), (Value(),)
    )


def test_names_of_a_status() -> None:
    assert names("servers", STATUS) == ["p/a:1", "p/b"]
    assert names("pools", STATUS) == ["p/", "q/"]
    assert names("listeners", STATUS) == ["in"]
    assert [names(what, {}) for what in ("servers", "pools", "listeners")] == [[], [], []]


@pytest.mark.parametrize(
    ("line", "admin", "token", "config"),
    [
        ("lbproxy drain --admin 10.0.0.1:1 p", "10.0.0.1:1", None, None),
        ("lbproxy drain --admin=:1 --token t", "127.0.0.1:1", "t", None),
        ("lbproxy drain -c lb.yaml --config x.yaml ", None, None, "x.yaml"),
        ("lbproxy drain --admin", None, None, None),
        ("lbproxy drain --admin 10.0.0.1:x", None, None, None),
        ("lbproxy drain --token= '", None, "", None),
        ("", None, None, None),
    ],
)
def test_the_line_that_is_typed_says_whom_to_ask(
    line: str, admin: str | None, token: str | None, config: str | None
) -> None:
    args = with_line(argparse.Namespace(admin=None, token=None, config=None), line)
    assert (args.admin and str(args.admin), args.token, args.config) == (admin, token, config)


def test_an_option_of_its_own_comes_first() -> None:
    own = argparse.Namespace(admin=parse_address("10.0.0.9:9"), token="mine", config=None)
    args = with_line(own, "lbproxy drain --admin 10.0.0.1:1 --token t")
    assert (str(args.admin), args.token) == ("10.0.0.9:9", "mine")


def test_names_are_printed_and_nobody_is_no_complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []

    def get(address: object, path: str, *, token: str | None, timeout_s: float) -> Mapping[str, object]:
        waited.append(timeout_s)
        if token == "wrong":
            raise _client.AdminError("nobody")
        return json.loads(json.dumps(STATUS))  # type: ignore[no-any-return]

    monkeypatch.setattr(_client, "get_object", get)
    assert cli.main(["completion", "servers"]) == 0
    assert capsys.readouterr().out == "p/a:1\np/b\n"
    monkeypatch.setenv("LBPROXY_LINE", "lbproxy drain --token wrong ")
    assert cli.main(["completion", "servers"]) == 1
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("LBPROXY_LINE", "lbproxy drain -c /no/such/file ")
    assert cli.main(["completion", "servers"]) == 1
    assert capsys.readouterr() == ("", "")
    assert waited == [1.0, 1.0]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell, build_parser())


def test_the_options_of_the_line_are_those_of_the_commands() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    asking.add_options(parser)
    assert {option for action in parser._actions for option in action.option_strings} >= {
        "--admin",
        "--token",
        "--config",
        "-c",
    }
