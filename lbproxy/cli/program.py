"""The command `lbproxy`: reads the command line, does one thing, returns an exit status.

Exit status: 0 fine, 1 run-time failure, 2 bad usage or configuration. `healthcheck` knows only 0 and 1, because
container runtimes reserve 2. Modules that cost start-up time (event loop, config models) are imported by the command
that needs them: a probe that runs every few seconds must not load a proxy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from lbproxy import __version__, _client
from lbproxy.cli import (
    asking,
    changing,
    completion,
    diagnosing,
    explaining,
    foreign_usage,
    keys,
    options_only,
    running,
    splitting,
    streams,
    top,
    trying,
)
from lbproxy.cli.common import (
    DEFAULT_ADMIN,
    FAILURE,
    USAGE,
    Command,
    ConfigRefused,
    UsageError,
    add_config,
    add_file,
    address_argument,
)

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

HEALTHCHECK = "healthcheck"
ALONE = ("-h", "--help", "-V", "--version")  # options of the program itself
DEBUG = "LBPROXY_DEBUG"  # set: a defect is shown with its traceback


class _Parser(argparse.ArgumentParser):
    """argparse keeps quiet when --help or --version cannot be written, and ends with 2 after bad usage, always."""

    usage_status = USAGE

    def options(self) -> list[str]:
        """The long options that it knows."""
        return [word for word in self._option_string_actions if word.startswith("--")]

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.usage_status, f"{self.prog}: error: {message}\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is sys.stdout and message:
            streams.write(message)
        else:
            super()._print_message(message, file)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command as `lbproxy --help` shows it, and what its parser gets."""

    function: Command
    text: str
    example: str
    add_options: Callable[[_Parser], None] = lambda _parser: None


def _options_of_run(parser: _Parser) -> None:
    add_file(parser, "config file (YAML)")
    running.add_options_of_run(parser)
    options_only.add_options(parser)


def _options_of_demo(parser: _Parser) -> None:
    parser.add_argument(
        "--servers",
        metavar="HOST:FIRST-LAST",
        default="127.0.0.1:0",
        help="ports of the predict servers, as in 127.0.0.1:5001-5003 (default: three free ones)",
    )
    parser.add_argument(
        "--bind", metavar="ADDRESS", type=address_argument, help="where the proxy listens (default 127.0.0.1:5000)"
    )
    parser.add_argument(
        "--admin", metavar="ADDRESS", type=address_argument, help=f"admin address (default {DEFAULT_ADMIN})"
    )
    add_config(
        parser, "run lbproxy with this file in place of the bundled one; give the ports of its servers to --servers"
    )


def _options_of_status(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say all that is known: what makes each state, names, connections"
    )
    asking.add_options(parser, takes_file=True)


def _options_of_reload(parser: _Parser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only say the steps")
    parser.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    asking.add_options(parser, 30.0, "wait this long (default 30)", takes_file=True)


def _options_of_upgrade(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    asking.add_options(parser, 90.0, "wait this long (default 90)", takes_file=True)


def _options_of_admin_state(name: str) -> Callable[[_Parser], None]:
    def add_options(parser: _Parser) -> None:
        parser.set_defaults(key="admin", value=name)
        changing.add_options(
            parser,
            waits=name != "ready",
            all_but=True,
            cuts=name == "maint",
            keeps=name == "drain",
            gives_back=name == "ready",
        )

    return add_options


def _options_of_weight(parser: _Parser) -> None:
    parser.set_defaults(key="weight")
    changing.add_options(parser, has_value="N|file", gives_back=True)


def _options_of_limit(parser: _Parser) -> None:
    parser.set_defaults(key="max_inflight")
    changing.add_options(parser, has_value="N|off|file", gives_back=True)


def _options_of_healthcheck(parser: _Parser) -> None:
    parser.usage_status = FAILURE
    parser.add_argument("--live", action="store_true", help="ask only whether the process lives (/healthz)")
    asking.add_options(parser, takes_file=True)


COMMANDS: Final[Mapping[str, _Entry]] = {
    "run": _Entry(running.run, "run in the foreground until SIGTERM or Ctrl-C", "lbproxy run lb.yaml", _options_of_run),
    "check": _Entry(
        running.check,
        "validate a config file: every problem at once",
        "lbproxy check lb.yaml",
        lambda parser: add_file(parser, "config file (YAML)"),
    ),
    "test": _Entry(
        trying.test, "try the requests in `tests` of a config file", "lbproxy test lb.yaml", trying.add_options
    ),
    "doctor": _Entry(
        diagnosing.doctor,
        "say what the servers are, and which lines of a config fit them",
        "lbproxy doctor lb.yaml",
        diagnosing.add_options,
    ),
    "schema": _Entry(
        running.schema, "print the JSON Schema of the config file", "lbproxy schema > lbproxy.schema.json"
    ),
    "demo": _Entry(
        running.demo,
        "run three predict servers and a proxy in front of them",
        "lbproxy demo --bind :8000",
        _options_of_demo,
    ),
    "status": _Entry(
        asking.status, "show servers and their states", "lbproxy status --admin 127.0.0.1:8404", _options_of_status
    ),
    "explain": _Entry(
        explaining.explain,
        "say why a request would go where it would go, or what came of one",
        "lbproxy explain POST /predict -H 'x-model: b'",
        explaining.add_options,
    ),
    "top": _Entry(top.top, "show servers and rates, again and again", "lbproxy top --sort errors", top.add_options),
    "reload": _Entry(
        asking.reload,
        "read the config file again, and say what that changes",
        "lbproxy reload --dry-run",
        _options_of_reload,
    ),
    "upgrade": _Entry(
        asking.upgrade,
        "have another process, perhaps of another version, take over without a gap",
        "lbproxy upgrade --admin 127.0.0.1:8404",
        _options_of_upgrade,
    ),
    "drain": _Entry(
        changing.change,
        "send servers no new requests",
        "lbproxy drain predict/10.0.0.7:5001",
        _options_of_admin_state("drain"),
    ),
    "ready": _Entry(
        changing.change, "use servers again", "lbproxy ready predict/10.0.0.7:5001", _options_of_admin_state("ready")
    ),
    "maint": _Entry(
        changing.change,
        "take servers into maintenance: no new requests, no checks",
        "lbproxy maint predict/10.0.0.7:5001",
        _options_of_admin_state("maint"),
    ),
    "weight": _Entry(
        changing.change, "set the weight of servers", "lbproxy weight predict/10.0.0.* 5", _options_of_weight
    ),
    "limit": _Entry(
        changing.change,
        "set how many requests servers get at once",
        "lbproxy limit predict/10.0.0.* 4",
        _options_of_limit,
    ),
    "add": _Entry(
        changing.add,
        "add servers to a running pool",
        "lbproxy add predict/10.0.0.8:5001 --weight 2",
        changing.add_options_of_add,
    ),
    "remove": _Entry(
        changing.remove,
        "remove servers when they are idle",
        "lbproxy remove predict/10.0.0.7:5001 --wait",
        lambda parser: changing.add_options(parser, waits=True),
    ),
    "split": _Entry(
        splitting.split,
        "show how routes share requests out among pools, or change it",
        "lbproxy split web/0 stable=90 canary=10",
        splitting.add_options,
    ),
    "key": _Entry(
        keys.key,
        "make an API key, and the line of the file of keys that knows it",
        "lbproxy key new team-a --file keys.txt",
        keys.add_options,
    ),
    "completion": _Entry(
        lambda args: completion.complete(args, build_parser()),
        "print the script with which a shell completes commands, options and names",
        "source <(lbproxy completion bash)",
        completion.add_options,
    ),
    HEALTHCHECK: _Entry(
        asking.healthcheck,
        "exit 0 if lbproxy is ready, 1 if not",
        "lbproxy healthcheck --live",
        _options_of_healthcheck,
    ),
}
"""In the order of `lbproxy --help`."""


def build_parser(names: Collection[str] = COMMANDS) -> _Parser:
    """The parser of these commands: that of one is made in 0.3 ms, and those of all in 4."""
    parser = _Parser(
        prog="lbproxy",
        description="A TCP and HTTP load balancer. `lbproxy FILE` is short for `lbproxy run FILE`.",
        epilog="example: lbproxy run --to :5001 --to :5002 --bind :5000",
    )
    parser.add_argument("-V", "--version", action="version", version=f"lbproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in names:
        entry = COMMANDS[name]
        added = commands.add_parser(
            name, help=entry.text, description=f"{entry.text}.", epilog=f"example: {entry.example}"
        )
        added.set_defaults(function=entry.function)
        entry.add_options(added)
    return parser


def subparser(parser: argparse.ArgumentParser, command: str) -> _Parser:
    """The parser of a command."""
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found = action.choices[command]
    assert isinstance(found, _Parser)
    return found


def unknown_word(word: str, options: Sequence[str]) -> str:
    """What to say of a word of the command line that no option or argument of the command is."""
    if not word.startswith("-"):
        return f"{word!r} is one word too many"
    name = word.partition("=")[0]
    meant = [other for other in foreign_usage.OPTIONS.get(name, ()) if other in options or " " in other]
    if meant and " " in meant[0]:
        return f"there is no option {name}; {meant[0]}"
    if not meant:
        from difflib import get_close_matches

        meant = get_close_matches(name, options, n=1)
    hint = f"did you mean {meant[0]}?" if meant else f"options: {', '.join(options)}"
    return f"there is no option {name}; {hint}"


def with_command(argv: Sequence[str]) -> list[str]:
    """`lbproxy FILE` and `lbproxy -c FILE` are `lbproxy run ...`: options of the program itself come alone.

    Raises UsageError for a word that is neither a command nor looks like a file.
    """
    if not argv or argv[0] in COMMANDS or argv[0] in ALONE:
        return list(argv)
    first = argv[0]
    if first == "help":
        return [*argv[1:2], "--help"]
    if not first.startswith("-") and not ({".", "/"} & set(first) or Path(first).exists()):
        from difflib import get_close_matches

        if told := foreign_usage.COMMANDS.get(first):
            raise UsageError(f"there is no command {first!r}; {told}")
        close = get_close_matches(first, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command and no file {first!r}; {hint}")
    return ["run", *argv]


def defect_line(name: str, error: Exception) -> str:
    """One line about an exception that should not be: what it is, where, and what to do."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    # Without the directories, which nobody but the user has.
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"{name}: this is a defect of lbproxy {__version__}: {told}{place}; please report it, with what the same "
        f"command prints with {DEBUG}=1 set"
    )


def _run(argv: Sequence[str]) -> int:
    name = "lbproxy"
    try:
        words = with_command(argv)
        parser = build_parser([words[0]] if words and words[0] in COMMANDS else COMMANDS)
        if not words:
            parser.print_help(sys.stderr)
            return USAGE
        if words[0] == HEALTHCHECK:
            # Container runtimes reserve 2, whatever is wrong with the options.
            parser.usage_status = FAILURE
        args, rest = parser.parse_known_args(words)
        if rest:
            its = subparser(parser, args.command)
            its.error(unknown_word(rest[0], its.options()))
        name = f"lbproxy {args.command}"
        function: Command = args.function
        return function(args)
    except ConfigRefused as error:
        streams.complain(error)
        return USAGE
    except UsageError as error:
        streams.complain(f"{name}: {error}")
        return USAGE
    except _client.AdminError as error:
        streams.complain(f"{name}: {error}")
        return FAILURE
    except streams.OutputError as error:
        streams.discard_output()
        streams.complain(f"{name}: cannot write to standard output: {error}")
        return FAILURE
    except BrokenPipeError:
        # The reader of our output left (`lbproxy schema | head`); without this the interpreter complains at exit.
        streams.discard_output()
        return FAILURE
    except KeyboardInterrupt:
        return FAILURE
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        streams.complain(defect_line(name, error))
        return FAILURE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. argparse itself exits with 2 on bad usage and 0 after --help."""
    if argv is None:
        streams.reserve()
        argv = sys.argv[1:]
    return _run(argv)
