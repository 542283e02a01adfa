"""`lbproxy run --to :5001 ...`: the config file that the options stand for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lbproxy.config.loader import Loaded
    from lbproxy.config.problems import Problem

from lbproxy.cli import streams
from lbproxy.cli.common import ConfigRefused

DEFAULT_BIND: Final = ":5000"
COMMAND_LINE: Final = "command line"  # the file name in complaints about options
POOL: Final = "default"

# Which option a key of the made config comes from.
_OPTIONS: Final = {
    f"pools.{POOL}.servers": "--to",
    f"pools.{POOL}.strategy": "--strategy",
    f"pools.{POOL}.health_check": "--health",
    f"pools.{POOL}.max_inflight": "--slots",
    "listeners[0].bind": "--bind",
    "listeners[0].mode": "--mode",
    "admin": "--admin",
}
NAMES: Final = ("to", "bind", "strategy", "health", "slots", "mode", "admin")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("without a file")
    group.add_argument(
        "--to", metavar="ADDRESS", action="append", help="a server, or several as in :5001-5003; repeat it for more"
    )
    group.add_argument(
        "--bind",
        metavar="ADDRESS",
        action="append",
        help=f"where to listen (default {DEFAULT_BIND}); repeat it for more",
    )
    group.add_argument("--strategy", metavar="NAME", help="how a server is chosen (default least_connections)")
    group.add_argument(
        "--health", metavar="off|tcp|/PATH", help="how servers are checked: /PATH asks by HTTP (default tcp)"
    )
    group.add_argument("--slots", metavar="N", help="requests at once per server; more wait in a queue (default off)")
    group.add_argument("--mode", metavar="http|tcp", help="balance requests, or connections as they are (default http)")
    group.add_argument("--admin", metavar="ADDRESS|off", help="where status and metrics are served")
    group.add_argument("--print", action="store_true", help="print the config file that they stand for, and exit")


def used(args: argparse.Namespace) -> list[str]:
    """The options of this kind that were given."""
    return [f"--{name}" for name in NAMES if getattr(args, name)] + (["--print"] if args.print else [])


def document(args: argparse.Namespace) -> dict[str, Any]:
    """The config as data, in the order of the manual. `--to :5001` is a server on this machine."""
    pool: dict[str, Any] = {"servers": [f"127.0.0.1{text}" if text.startswith(":") else text for text in args.to]}
    listener: dict[str, Any] = {"bind": list(args.bind or [DEFAULT_BIND]), "pool": POOL}
    if args.mode:
        listener["mode"] = args.mode
    if args.strategy:
        pool["strategy"] = args.strategy
    if args.health:
        pool["health_check"] = args.health
    if args.slots:
        pool["max_inflight"] = int(args.slots) if args.slots.isascii() and args.slots.isdigit() else args.slots
    admin = {"admin": {"bind": args.admin}} if args.admin else {}
    return {**admin, "listeners": [listener], "pools": {POOL: pool}}


def config_text(args: argparse.Namespace) -> str:
    """The same as the text of a file. JSON is YAML whose strings nothing interprets but `${}`."""
    return json.dumps(document(args)).replace("${", "$${")


def config_yaml(args: argparse.Namespace) -> str:
    """The same as a person would write it."""
    import yaml

    text: str = yaml.safe_dump(document(args), sort_keys=False, width=1000, allow_unicode=True)
    return text.replace("${", "$${")


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> Loaded:
    """The config; warnings go to stderr. Raises ConfigRefused."""
    from lbproxy.config import loader

    try:
        loaded = loader.load_text(config_text(args), COMMAND_LINE, environ)
    except loader.ConfigError as error:
        raise ConfigRefused([told(problem, args) for problem in error.problems]) from None
    for warning in loaded.warnings:
        streams.complain(f"{told(warning, args)} (warning)")
    return loaded


def told(problem: Problem, args: argparse.Namespace) -> str:
    """The complaint with the option that it is about in place of a line that nobody wrote."""
    where = next((option for key, option in _OPTIONS.items() if problem.path.startswith(key)), problem.path)
    value = getattr(args, where.removeprefix("--"), None)
    if isinstance(value, list):
        index = problem.path.rpartition("[")[2].partition("]")[0]
        value = value[int(index)] if index.isdigit() and int(index) < len(value) else None
    shown = f"{where} {value}" if value else where
    suggestion = f"; {problem.suggestion}" if problem.suggestion else ""
    return f"{COMMAND_LINE}: {shown}: {problem.message}{suggestion}"
