"""Commands about a config: run it, check it, print its schema, show the demo."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lbproxy.cli import options_only, streams
from lbproxy.cli.common import OK, USAGE, ConfigRefused, UsageError, counted, load_config, named_file
from lbproxy.config.problems import Unusable

if TYPE_CHECKING:
    from lbproxy.process.outside import Outside


def run(args: argparse.Namespace) -> int:
    from lbproxy.process.outside import Outside

    try:
        outside = Outside.of(os.environ, args.pid_file, keeps_pid=args.keep_pid)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        return _run(args, outside)
    except (ConfigRefused, UsageError) as error:
        if outside.arrival is not None:
            outside.arrival.fail(str(error).splitlines())
        raise


def add_options_of_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid-file", metavar="PATH", help="write the id of the process that serves to this file")
    parser.add_argument(
        "--keep-pid", action="store_true", help="stay after an upgrade, for supervisors that watch this process"
    )


def _run(args: argparse.Namespace, outside: Outside) -> int:
    path, options = named_file(args), options_only.used(args)
    if path is not None and options:
        raise UsageError(f"{path} is all that a run needs: leave out {' and '.join(options)}")
    if path is None and not args.to:
        raise UsageError("say what to run: a config file, or --to ADDRESS (more than once) and --bind ADDRESS")
    from lbproxy.config.loader import Kept

    kept = Kept()
    if path is None:
        loaded = options_only.load(args, os.environ)
    else:
        loaded = load_config(path, os.environ, checks_files=True, kept=kept)
    if args.print:
        streams.write(options_only.config_yaml(args))
        return OK
    log = loaded.config.access_log
    if log is not None and log.path in streams.closed:
        streams.complain(f"lbproxy run: {log.path} was closed at the start, so the access log goes nowhere")
    from lbproxy.process import worker
    from lbproxy.process.workers.cores import usable_cores

    def shown(unusable: Unusable) -> str:
        problem = loaded.problem(unusable)
        return options_only.told(problem, args) if path is None else str(problem)

    n_workers = loaded.config.workers or usable_cores()
    if n_workers == 1:
        return worker.run(loaded.config, shown, config_path=path or "", kept=kept, outside=outside)
    from lbproxy.process.workers import foreground

    return foreground.run(loaded.config, shown, config_path=path or "", kept=kept, outside=outside, n_workers=n_workers)


def check(args: argparse.Namespace) -> int:
    path = named_file(args)
    if path is None:
        raise UsageError("say which file: lbproxy check FILE")
    loaded = load_config(path, os.environ, checks_files=True)
    from lbproxy.config import servers_file
    from lbproxy.control.discovery.kubernetes import access
    from lbproxy.process import rehearsal

    config = loaded.config
    problems = [loaded.problem(unusable) for unusable in rehearsal.problems(config, config_path=path)]
    listed = servers_file.look_at(config, Path(path).parent, os.environ)
    for missing in (*rehearsal.doubts(config, config_path=path), *listed.missing):
        streams.complain(f"{loaded.problem(missing)} (warning)")
    problems += listed.problems
    for unusable, may_pass in access.look_at(config, Path(path).parent):
        if may_pass:
            streams.complain(f"{loaded.problem(unusable)} (warning)")
        else:
            problems.append(loaded.problem(unusable))
    for problem in problems:
        streams.complain(str(problem))
    if problems:
        return USAGE
    name = loaded.document.file
    servers = sum(len(pool.servers) for pool in config.pools.values()) + listed.n_servers
    parts = (
        counted(len(config.listeners), "listener"),
        counted(len(config.pools), "pool"),
        counted(servers, "server"),
    )
    streams.say(f"{name}: ok ({', '.join(parts)})")
    return OK


def schema(_args: argparse.Namespace) -> int:
    from lbproxy.config.schema import json_schema_text

    streams.write(json_schema_text())
    return OK


def demo(args: argparse.Namespace) -> int:
    from lbproxy.demo import runner

    if args.config is None:
        return runner.run(
            runner.Plan(args.servers, args.bind or runner.DEFAULT_BIND, args.admin or runner.DEFAULT_ADMIN)
        )
    if args.bind or args.admin:
        raise UsageError("--bind and --admin come from the file given with --config")
    config = load_config(args.config, os.environ).config
    bind = config.listeners[0].bind[0]
    if config.admin.bind is None:
        raise UsageError(f"{args.config} turns the admin address off (admin.bind); the demo shows it")
    return runner.run(runner.Plan(args.servers, bind, config.admin.bind, Path(args.config)))
