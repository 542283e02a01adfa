"""Commands that ask a running lbproxy at its admin address."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lbproxy import _client
from lbproxy.address import Address, parse_address
from lbproxy.cli import status_page, streams
from lbproxy.cli.common import (
    DEFAULT_ADMIN,
    FAILURE,
    OK,
    USAGE,
    UsageError,
    add_config,
    add_file,
    address_argument,
    counted,
    load_config,
    named_file,
    seconds_argument,
)


def add_options(
    parser: argparse.ArgumentParser,
    timeout_s: float = 5.0,
    what: str = "wait this long (default 5)",
    *,
    takes_file: bool = False,
) -> None:
    """timeout_s, what: the default of --timeout and what it is for. takes_file: a word alone is the config file."""
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
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds_argument, default=timeout_s, help=what)
    add = add_file if takes_file else add_config
    add(parser, "take address and token from this config file")


def admin_of(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Address, str | None]:
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
    path = named_file(args)
    if path is not None and (address is None or token is None):
        admin = load_config(path, environ).config.admin
        if address is None and admin.bind is None:
            raise UsageError(f"{path} turns the admin address off (admin.bind); nothing can be asked")
        address = address or admin.bind
        named = sorted(admin.tokens.values(), key=lambda item: item.scope != "write")
        token = token or admin.token or next((item.token for item in named if item.token is not None), None)
    return _client.reachable(address or parse_address(DEFAULT_ADMIN)), token


def status(args: argparse.Namespace) -> int:
    address, token = admin_of(args, os.environ)
    answer = _client.get_object(address, "/api/v1/status", token=token, timeout_s=args.timeout)
    if args.json:
        streams.say(json.dumps(answer, indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
        streams.say(status_page.page(answer, width=width, is_verbose=args.verbose))
    return OK


def reload(args: argparse.Namespace) -> int:
    address, token = admin_of(args, os.environ)
    path = f"/api/v1/reload{'?dry_run=1' if args.dry_run else ''}"
    answer = _client.call(address, "POST", path, token=token, timeout_s=args.timeout)
    told = _client.json_object(address, answer, f"POST {path}", (200, 422))
    if args.json:
        streams.say(json.dumps(told, indent=2))
        return OK if answer.status == 200 else USAGE
    for line in _list(told, "problems"):
        streams.complain(line)
    for line in _list(told, "warnings"):
        streams.complain(f"{line} (warning)")
    if answer.status != 200:
        return USAGE
    steps = [step.get("text") for step in objects(told.get("steps"))]
    done = f"{told.get('file')}: {counted(len(steps), 'step')}{_took(told.get('seconds'))}"
    streams.say("\n".join([done, *(f"  {step}" for step in steps)]))
    named = named_file(args)
    if named is not None and Path(named).name != Path(str(told.get("file"))).name:
        streams.complain(
            f"{named} only said whom to ask: the lbproxy there runs with {told.get('file')}, "
            "and that is what it has read"
        )
    return OK


def upgrade(args: argparse.Namespace) -> int:
    address, token = admin_of(args, os.environ)
    answer = _client.call(address, "POST", "/api/v1/upgrade", token=token, timeout_s=args.timeout)
    told = _client.json_object(address, answer, "POST /api/v1/upgrade", (200, 409, 422))
    if args.json:
        streams.say(json.dumps(told, indent=2))
        return OK if answer.status == 200 else FAILURE
    if answer.status != 200:
        for line in _list(told, "problems"):
            streams.complain(line)
        streams.complain("no upgrade: the lbproxy that was asked goes on as before")
        return FAILURE
    old, new = (f"{_member(told, key, 'pid')} ({_member(told, key, 'version')})" for key in ("old", "new"))
    streams.say(
        f"process {new} has taken over from {old}, after {told.get('seconds')} s; the old one finishes what it has"
    )
    return OK


def _member(told: Mapping[str, object], key: str, name: str) -> object:
    value = told.get(key)
    return value.get(name) if isinstance(value, dict) else None


def _took(seconds: object) -> str:
    """How long a reload took; nothing of one that only would be."""
    total, read = (seconds.get("total"), seconds.get("read")) if isinstance(seconds, dict) else (None, None)
    if not isinstance(total, float | int) or not isinstance(read, float | int):
        return ""
    return f", in force after {1000 * total:.0f} ms, of which reading took {1000 * read:.0f} ms"


def objects(value: object) -> list[Mapping[str, object]]:
    """The objects of a list in an answer, which may be of another version."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _list(told: Mapping[str, object], key: str) -> list[object]:
    value = told.get(key)
    return value if isinstance(value, list) else []


def healthcheck(args: argparse.Namespace) -> int:
    path = "/healthz" if args.live else "/readyz"
    try:
        address, token = admin_of(args, os.environ)
        answer = _client.get(address, path, token=token, timeout_s=args.timeout)
    except Exception as error:
        # Whatever is wrong, a container runtime must read "unhealthy" (1), never 2 or a traceback.
        streams.complain(error)
        return FAILURE
    told = answer.text.strip() or str(answer.status)
    if answer.status != 200:
        streams.complain(told)
        return FAILURE
    streams.say(told)
    return OK
