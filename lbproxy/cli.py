"""The command `lbproxy`: reads the command line, does one thing, returns an exit status.

Exit status: 0 fine, 1 run-time failure, 2 bad usage or configuration. `healthcheck` knows only 0 and 1, because
container runtimes reserve 2. Modules that cost start-up time (event loop, config models) are imported by the command
that needs them: a probe that runs every few seconds must not load a proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lbproxy import __version__, _client
from lbproxy.address import Address, parse_address

if TYPE_CHECKING:
    from lbproxy.config.loader import Loaded

OK, FAILURE, USAGE = 0, 1, 2
DEFAULT_ADMIN = "127.0.0.1:8404"
DEFAULT_BIND = ":5000"
COMMAND_LINE = "command line"  # the file name in complaints about --to and --bind


class UsageError(Exception):
    """Options that cannot be combined. The text is one sentence for the user."""


class ConfigRefused(Exception):
    """The config has problems: one line for each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))


def address_argument(text: str) -> Address:
    try:
        return parse_address(text, default_host="127.0.0.1")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds_argument(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (above 0, at most 3600)")
    return value


def config_text(to: Sequence[str], bind: Sequence[str]) -> str:
    """The config file that `--to` and `--bind` stand for. `--to :5001` is a server on this machine."""
    servers = [f"127.0.0.1{text}" if text.startswith(":") else text for text in to]
    document = {
        "listeners": [{"bind": list(bind), "pool": "default"}],
        "pools": {"default": {"servers": servers}},
    }
    # JSON is YAML whose strings nothing interprets but `${}`, of which `$${` is the literal form.
    return json.dumps(document).replace("${", "$${")


def _load(args: argparse.Namespace, environ: Mapping[str, str], *, checks_files: bool = False) -> Loaded:
    """The config that the options name; warnings go to stderr. Raises UsageError, ConfigRefused.

    checks_files: read the certificates too. Who only asks a running lbproxy may not be allowed to.
    """
    from lbproxy.config import loader

    to, bind = getattr(args, "to", None), getattr(args, "bind", None)
    if args.config is not None and (to or bind):
        raise UsageError("--config is all that a run needs: leave out --to and --bind")
    if args.config is None and not to:
        raise UsageError("say what to run: --config FILE, or --to ADDRESS (more than once) and --bind ADDRESS")
    try:
        if args.config is not None:
            loaded = loader.load_file(args.config, environ, checks_files=checks_files)
        else:
            loaded = loader.load_text(config_text(to or [], bind or [DEFAULT_BIND]), COMMAND_LINE, environ)
    except loader.ConfigError as error:
        raise ConfigRefused([str(problem) for problem in error.problems]) from None
    except OSError as error:
        raise ConfigRefused([f"{args.config}: {error.strerror or error}"]) from None
    for warning in loaded.warnings:
        print(f"{warning} (warning)", file=sys.stderr)
    return loaded


def _run(args: argparse.Namespace) -> int:
    loaded = _load(args, os.environ, checks_files=True)
    from lbproxy.process import worker

    return worker.run(loaded.config, config_path=args.config or "")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _check(args: argparse.Namespace) -> int:
    config = _load(args, os.environ, checks_files=True).config
    servers = sum(len(pool.servers) for pool in config.pools.values())
    parts = (
        counted(len(config.listeners), "listener"),
        counted(len(config.pools), "pool"),
        counted(servers, "server"),
    )
    print(f"{args.config}: ok ({', '.join(parts)})")
    return OK


def _schema(args: argparse.Namespace) -> int:
    from lbproxy.config.schema import json_schema_text

    sys.stdout.write(json_schema_text())
    return OK


def _demo(args: argparse.Namespace) -> int:
    from lbproxy.demo import runner

    if args.config is None:
        return runner.run(
            runner.Plan(args.servers, args.bind or runner.DEFAULT_BIND, args.admin or runner.DEFAULT_ADMIN)
        )
    if args.bind or args.admin:
        raise UsageError("--bind and --admin come from the file given with --config")
    config = _load(args, os.environ).config
    bind = config.listeners[0].bind[0]
    if config.admin.bind is None:
        raise UsageError(f"{args.config} turns the admin address off (admin.bind); the demo shows it")
    return runner.run(runner.Plan(args.servers, bind, config.admin.bind, Path(args.config)))


def _admin_of(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Address, str | None]:
    """Address and token of the running lbproxy: options, environment, config file, default, in this order.

    Raises UsageError, ConfigRefused.
    """
    address: Address | None = args.admin
    if address is None and "LBPROXY_ADMIN" in environ:
        try:
            address = parse_address(environ["LBPROXY_ADMIN"], default_host="127.0.0.1")
        except ValueError as error:
            raise UsageError(f"LBPROXY_ADMIN: {error}") from None
    token: str | None = args.token or environ.get("LBPROXY_TOKEN") or None
    if args.config is not None and (address is None or token is None):
        admin = _load(args, environ).config.admin
        if address is None and admin.bind is None:
            raise UsageError(f"{args.config} turns the admin address off (admin.bind); nothing can be asked")
        address = address or admin.bind
        token = token or admin.token
    return _client.reachable(address or parse_address(DEFAULT_ADMIN)), token


def _status(args: argparse.Namespace) -> int:
    address, token = _admin_of(args, os.environ)
    status = _client.get_object(address, "/api/v1/status", token=token, timeout_s=args.timeout)
    print(json.dumps(status, indent=2) if args.json else _client.status_table(status))
    return OK


def _healthcheck(args: argparse.Namespace) -> int:
    path = "/healthz" if args.live else "/readyz"
    try:
        address, token = _admin_of(args, os.environ)
        answer = _client.get(address, path, token=token, timeout_s=args.timeout)
    except Exception as error:
        # Whatever is wrong, a container runtime must read "unhealthy" (1), never 2 or a traceback.
        print(error, file=sys.stderr)
        return FAILURE
    print(answer.text.strip() or answer.status, file=sys.stdout if answer.status == 200 else sys.stderr)
    return OK if answer.status == 200 else FAILURE


def _add_config(parser: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", required=required, help=what)


def _add_admin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        type=address_argument,
        help="whom to ask: host:port or unix:PATH "
        f"(default: the variable LBPROXY_ADMIN, else the file of --config, else {DEFAULT_ADMIN})",
    )
    parser.add_argument(
        "--token",
        help="its admin.token, if one is set (default: the variable LBPROXY_TOKEN, else the file of --config)",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds_argument, default=5.0, help="wait this long (default 5)"
    )
    _add_config(parser, "take address and token from this config file")


Command = Callable[[argparse.Namespace], int]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbproxy",
        description="A TCP and HTTP load balancer. `lbproxy -c FILE` is short for `lbproxy run -c FILE`.",
        epilog="example: lbproxy run --to :5001 --to :5002 --bind :5000",
    )
    parser.add_argument("--version", action="version", version=f"lbproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    def command(name: str, function: Command, text: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text}.", epilog=f"example: {example}")
        added.set_defaults(function=function)
        return added

    run = command("run", _run, "run in the foreground until SIGTERM or Ctrl-C", "lbproxy run -c lb.yaml")
    _add_config(run, "config file (YAML)")
    run.add_argument(
        "--to",
        metavar="ADDRESS",
        action="append",
        help="without a file: a server, or several as in :5001-5003; repeat it for more",
    )
    run.add_argument(
        "--bind",
        metavar="ADDRESS",
        action="append",
        help=f"without a file: where to listen (default {DEFAULT_BIND}); repeat it for more",
    )
    check = command("check", _check, "validate a config file: every problem at once", "lbproxy check -c lb.yaml")
    _add_config(check, "config file (YAML)", required=True)
    command("schema", _schema, "print the JSON Schema of the config file", "lbproxy schema > lbproxy.schema.json")
    demo = command("demo", _demo, "run three predict servers and a proxy in front of them", "lbproxy demo --bind :8000")
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
    _add_config(
        demo, "run lbproxy with this file in place of the bundled one; give the ports of its servers to --servers"
    )
    status = command("status", _status, "show servers and their states", "lbproxy status --admin 127.0.0.1:8404")
    status.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    _add_admin(status)
    health = command("healthcheck", _healthcheck, "exit 0 if lbproxy is ready, 1 if not", "lbproxy healthcheck --live")
    health.add_argument("--live", action="store_true", help="ask only whether the process lives (/healthz)")
    _add_admin(health)
    return parser


def with_command(argv: Sequence[str]) -> list[str]:
    """`lbproxy -c FILE` is `lbproxy run -c FILE`: options of the program itself come alone."""
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
        return ["run", *argv]
    return list(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. argparse itself exits with 2 on bad usage and 0 after --help."""
    parser = build_parser()
    words = with_command(sys.argv[1:] if argv is None else argv)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(USAGE)
    args = parser.parse_args(words)
    function: Command = args.function
    try:
        return function(args)
    except ConfigRefused as error:
        print(error, file=sys.stderr)
        return USAGE
    except UsageError as error:
        print(f"lbproxy {args.command}: {error}", file=sys.stderr)
        return USAGE
    except _client.AdminError as error:
        print(f"lbproxy {args.command}: {error}", file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        # The reader of our output left (`lbproxy schema | head`); without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except KeyboardInterrupt:
        return FAILURE
