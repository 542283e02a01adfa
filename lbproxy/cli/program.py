"""The command `lbproxy`: reads the command line, does one thing, returns an exit status.

Exit status: 0 fine, 1 run-time failure, 2 bad usage or configuration. `healthcheck` knows only 0 and 1, because
container runtimes reserve 2. Modules that cost start-up time (event loop, config models) are imported by the command
that needs them: a probe that runs every few seconds must not load a proxy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

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


def build_parser() -> _Parser:
    parser = _Parser(
        prog="lbproxy",
        description="A TCP and HTTP load balancer. `lbproxy FILE` is short for `lbproxy run FILE`.",
        epilog="example: lbproxy run --to :5001 --to :5002 --bind :5000",
    )
    parser.add_argument("-V", "--version", action="version", version=f"lbproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    def command(name: str, function: Command, text: str, example: str) -> _Parser:
        added = commands.add_parser(name, help=text, description=f"{text}.", epilog=f"example: {example}")
        added.set_defaults(function=function)
        return added

    run = command("run", running.run, "run in the foreground until SIGTERM or Ctrl-C", "lbproxy run lb.yaml")
    add_file(run, "config file (YAML)")
    running.add_options_of_run(run)
    options_only.add_options(run)
    check = command("check", running.check, "validate a config file: every problem at once", "lbproxy check lb.yaml")
    add_file(check, "config file (YAML)")
    test = command("test", trying.test, "try the requests in `tests` of a config file", "lbproxy test lb.yaml")
    trying.add_options(test)
    doctor = command(
        "doctor",
        diagnosing.doctor,
        "say what the servers are, and which lines of a config fit them",
        "lbproxy doctor lb.yaml",
    )
    diagnosing.add_options(doctor)
    command(
        "schema", running.schema, "print the JSON Schema of the config file", "lbproxy schema > lbproxy.schema.json"
    )
    demo = command(
        "demo", running.demo, "run three predict servers and a proxy in front of them", "lbproxy demo --bind :8000"
    )
    demo.add_argument(
        "--servers",
        metavar="HOST:FIRST-LAST",
        default="127.0.0.1:0",
        help="ports of the predict servers, as in 127.0.0.1:5001-5003 (default: three free ones)",
    )
    demo.add_argument(
        "--bind", metavar="ADDRESS", type=address_argument, help="where the proxy listens (default 127.0.0.1:5000)"
    )
    demo.add_argument(
        "--admin", metavar="ADDRESS", type=address_argument, help=f"admin address (default {DEFAULT_ADMIN})"
    )
    add_config(
        demo, "run lbproxy with this file in place of the bundled one; give the ports of its servers to --servers"
    )
    status = command("status", asking.status, "show servers and their states", "lbproxy status --admin 127.0.0.1:8404")
    status.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    status.add_argument(
        "-v", "--verbose", action="store_true", help="say all that is known: what makes each state, names, connections"
    )
    asking.add_options(status, takes_file=True)
    explain = command(
        "explain",
        explaining.explain,
        "say why a request would go where it would go, or what came of one",
        "lbproxy explain POST /predict -H 'x-model: b'",
    )
    explaining.add_options(explain)
    top.add_options(command("top", top.top, "show servers and rates, again and again", "lbproxy top --sort errors"))
    reload = command(
        "reload",
        asking.reload,
        "read the config file again, and say what that changes",
        "lbproxy reload --dry-run",
    )
    reload.add_argument("--dry-run", action="store_true", help="change nothing, only say the steps")
    reload.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    asking.add_options(reload, 30.0, "wait this long (default 30)", takes_file=True)
    upgrade = command(
        "upgrade",
        asking.upgrade,
        "have another process, perhaps of another version, take over without a gap",
        "lbproxy upgrade --admin 127.0.0.1:8404",
    )
    upgrade.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    asking.add_options(upgrade, 90.0, "wait this long (default 90)", takes_file=True)
    for name, text in (
        ("drain", "send servers no new requests"),
        ("ready", "use servers again"),
        ("maint", "take servers into maintenance: no new requests, no checks"),
    ):
        added = command(name, changing.change, text, f"lbproxy {name} predict/10.0.0.7:5001")
        added.set_defaults(key="admin", value=name)
        changing.add_options(
            added,
            waits=name != "ready",
            all_but=True,
            cuts=name == "maint",
            keeps=name == "drain",
            gives_back=name == "ready",
        )
    weight = command("weight", changing.change, "set the weight of servers", "lbproxy weight predict/10.0.0.* 5")
    weight.set_defaults(key="weight")
    changing.add_options(weight, has_value="N|file", gives_back=True)
    limit = command(
        "limit", changing.change, "set how many requests servers get at once", "lbproxy limit predict/10.0.0.* 4"
    )
    limit.set_defaults(key="max_inflight")
    changing.add_options(limit, has_value="N|off|file", gives_back=True)
    add = command("add", changing.add, "add servers to a running pool", "lbproxy add predict/10.0.0.8:5001 --weight 2")
    changing.add_options_of_add(add)
    remove = command(
        "remove", changing.remove, "remove servers when they are idle", "lbproxy remove predict/10.0.0.7:5001 --wait"
    )
    changing.add_options(remove, waits=True)
    split = command(
        "split",
        splitting.split,
        "show how routes share requests out among pools, or change it",
        "lbproxy split web/0 stable=90 canary=10",
    )
    splitting.add_options(split)
    key = command(
        "key",
        keys.key,
        "make an API key, and the line of the file of keys that knows it",
        "lbproxy key new team-a --file keys.txt",
    )
    keys.add_options(key)
    complete = command(
        "completion",
        lambda args: completion.complete(args, parser),
        "print the script with which a shell completes commands, options and names",
        "source <(lbproxy completion bash)",
    )
    completion.add_options(complete)
    health = command(
        HEALTHCHECK, asking.healthcheck, "exit 0 if lbproxy is ready, 1 if not", "lbproxy healthcheck --live"
    )
    health.usage_status = FAILURE
    health.add_argument("--live", action="store_true", help="ask only whether the process lives (/healthz)")
    asking.add_options(health, takes_file=True)
    return parser


def command_names(parser: argparse.ArgumentParser) -> list[str]:
    [action] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(action.choices)


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


def with_command(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """`lbproxy FILE` and `lbproxy -c FILE` are `lbproxy run ...`: options of the program itself come alone.

    Raises UsageError for a word that is neither a command nor looks like a file.
    """
    commands = command_names(parser)
    if not argv or argv[0] in commands or argv[0] in ALONE:
        return list(argv)
    first = argv[0]
    if first == "help":
        return [*argv[1:2], "--help"]
    if not first.startswith("-") and not ({".", "/"} & set(first) or Path(first).exists()):
        from difflib import get_close_matches

        if told := foreign_usage.COMMANDS.get(first):
            raise UsageError(f"there is no command {first!r}; {told}")
        close = get_close_matches(first, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(commands)}"
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
    parser = build_parser()
    name = "lbproxy"
    try:
        words = with_command(argv, parser)
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
