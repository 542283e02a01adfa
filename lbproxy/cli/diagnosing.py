"""`lbproxy doctor`: what the servers of a config file are, and the lines that fit them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lbproxy.cli import streams
from lbproxy.cli.common import (
    FAILURE,
    OK,
    ConfigRefused,
    UsageError,
    add_file,
    counted,
    load_config,
    named_file,
    seconds_argument,
)

if TYPE_CHECKING:
    from lbproxy.config.loader import Loaded
    from lbproxy.doctor.advice import Advice
    from lbproxy.doctor.examining import Options, Patient
    from lbproxy.doctor.verdict import Evidence, Verdict

MOST_TOGETHER = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    add_file(parser, "config file (YAML)")
    parser.add_argument("--pool", metavar="NAME", action="append", help="only this pool; repeat it for more")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds_argument,
        default=5.0,
        help="longest wait for an answer (default 5)",
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=_idle_argument,
        default=6.5,
        help="hold an idle connection so long, to see when the server closes it (default 6.5; 0: do not)",
    )
    group = parser.add_argument_group("how many requests at once")
    group.add_argument("--probe", action="store_true", help="send real requests, alone and together, and time them")
    group.add_argument("--path", metavar="/PATH", help="what they ask for: one prediction, of 10 ms or more")
    group.add_argument("--method", metavar="GET|POST|...", help="their method (default GET; POST with a body)")
    group.add_argument("--body", metavar="TEXT|@FILE", help="their body; @FILE reads it from a file")
    group.add_argument(
        "--header", metavar="NAME: VALUE", action="append", help="a header of theirs; repeat it for more"
    )
    group.add_argument(
        "--at-most", metavar="N", type=_count_argument, default=16, help="most of them at a time (default 16)"
    )


def _idle_argument(text: str) -> float:
    return 0.0 if text in ("0", "0s", "off") else seconds_argument(text)


def _count_argument(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 2 <= int(text) <= MOST_TOGETHER):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 2 to {MOST_TOGETHER}")
    return int(text)


def doctor(args: argparse.Namespace) -> int:
    path = named_file(args)
    if path is None:
        raise UsageError("say which file: lbproxy doctor FILE")
    options = _options(args)
    loaded = load_config(path, os.environ)
    from lbproxy.config.problems import Unusable
    from lbproxy.doctor import examining

    config = loaded.config
    pools = list(dict.fromkeys(args.pool or config.pools))
    for name in pools:
        if name not in config.pools:
            raise UsageError(f"there is no pool {name}; pools: {', '.join(config.pools)}")
    if count := examining.too_many(config, pools):
        raise UsageError(
            f"{count} servers are more than {examining.MOST_SERVERS}; ask for one pool at a time with --pool"
        )
    try:
        patients = asyncio.run(examining.examine(config, pools, options, base_dir=str(Path(path).parent)))
    except Unusable as error:
        raise ConfigRefused([str(loaded.problem(error))]) from None
    return _report(loaded, pools, patients, is_json=args.json)


def _options(args: argparse.Namespace) -> Options:
    """Raises UsageError."""
    from lbproxy.config.notation import parse_field_name, parse_field_value, parse_method, parse_path
    from lbproxy.doctor.examining import Options
    from lbproxy.doctor.talking import Question

    given = [name for name in ("path", "method", "body", "header") if getattr(args, name) is not None]
    if not args.probe:
        if given:
            raise UsageError(f"--{given[0]} is for --probe, which sends real requests to the servers; say that too")
        return Options(args.timeout, args.idle)
    if args.path is None:
        raise UsageError("--probe sends real requests: say which with --path (and --method, --body, --header)")
    try:
        body = _body(args.body)
        headers = {}
        for text in args.header or ():
            name, colon, value = text.partition(":")
            if not colon:
                raise ValueError(f"--header {text!r} has no colon; write NAME: VALUE")
            headers[parse_field_name(name.strip())] = parse_field_value(value.strip())
        method = parse_method(args.method or ("GET" if args.body is None else "POST"))
        question = Question(parse_path(args.path), method, headers, body)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Options(args.timeout, args.idle, question, args.at_most)


def _body(text: str | None) -> bytes:
    if text is None or not text.startswith("@"):
        return (text or "").encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"--body {text}: {error.strerror or error}") from None


# --- what is printed --------------------------------------------------------------------------------------------------


def _report(loaded: Loaded, pools: Sequence[str], patients: Sequence[Patient], *, is_json: bool) -> int:
    from lbproxy.doctor.advice import advise, yaml_lines
    from lbproxy.doctor.verdict import judge

    told: list[dict[str, object]] = []
    lines: list[str] = []
    fits: dict[str, Mapping[str, str | int]] = {}
    troubles = 0
    for name in pools:
        own = {".".join(map(str, path[2:])) for path in loaded.document.values if path[:2] == ("pools", name)}
        found = [(patient, judge(patient.evidence)) for patient in patients if patient.pool == name]
        advice = advise(loaded.config.pools[name], own, [verdict for _, verdict in found])
        fits[name] = advice.lines
        troubles += sum(bool(verdict.problems) for _, verdict in found) + len(advice.problems)
        lines += [f"pool {name}", *(line for item in found for line in _server_lines(*item)), *_pool_lines(advice)]
        told.append(_pool_object(name, found, advice))
    fragment = yaml_lines(fits)
    if is_json:
        streams.say(json.dumps({"ok": not troubles, "pools": told, "yaml": "\n".join(fragment)}, indent=2))
    else:
        last = ["", "These lines fit (lbproxy check accepts them in the file):", "", *fragment] if fragment else []
        streams.say("\n".join([*lines, *last]))
    if troubles:
        streams.complain(f"{loaded.document.file}: {counted(troubles, 'problem')}")
        return FAILURE
    return OK


def _server_lines(patient: Patient, verdict: Verdict) -> list[str]:
    seen = patient.evidence
    lines = [f"  {patient.name}: {f'{verdict.what} ({verdict.why})' if verdict.what else _unknown(seen)}"]
    lines += [f"    problem: {problem}" for problem in verdict.problems if problem != seen.unreachable]
    if seen.check and not seen.is_check_failed and not seen.unreachable:
        lines.append(f"    check: {seen.check}")
    if seen.replies:
        lines.append(f"    connections: {_connections(seen)}")
    if seen.pids:
        lines.append(f"    processes on its port: {len(seen.pids)}")
    if seen.pace is not None:
        lines.append(f"    requests at once: {seen.pace}")
    return lines + [f"    note: {hint}" for hint in verdict.hints]


def _unknown(seen: Evidence) -> str:
    return seen.unreachable or ("asked nothing, as only TCP listeners use its pool" if not seen.trouble else "reached")


def _connections(seen: Evidence) -> str:
    if not any(reply.is_kept for reply in seen.replies.values()):
        return "closed after each answer"
    kept = "kept" if seen.is_reused else "said to be kept"
    if seen.closed_after_s is not None:
        return f"{kept}; closed after {seen.closed_after_s:.1f} s of silence"
    return f"{kept}; still open after {seen.held_s:g} s of silence" if seen.held_s else kept


def _pool_lines(advice: Advice) -> list[str]:
    return [f"  problem: {text}" for text in advice.problems] + [f"  note: {text}" for text in advice.hints]


def _pool_object(name: str, found: Sequence[tuple[Patient, Verdict]], advice: Advice) -> dict[str, object]:
    return {
        "name": name,
        "servers": [_server_object(*item) for item in found],
        "fits": dict(advice.lines),
        "problems": list(advice.problems),
        "notes": list(advice.hints),
    }


def _server_object(patient: Patient, verdict: Verdict) -> dict[str, object]:
    seen = patient.evidence
    pace = seen.pace
    return {
        "name": patient.name,
        "address": str(patient.address),
        "kind": verdict.kind,
        "what": verdict.what,
        "why": verdict.why,
        "http2": None
        if seen.http2 is None
        else {"streams": seen.http2.streams, "grpc": seen.http2.is_grpc, "serving": seen.http2.is_serving},
        "check": seen.check,
        "kept": any(reply.is_kept for reply in seen.replies.values()) if seen.replies else None,
        "closed_after": None if seen.closed_after_s is None else round(seen.closed_after_s, 2),
        "held": seen.held_s,
        "pids": list(seen.pids),
        "at_once": None if pace is None else pace.at_once,
        "at_once_or_more": pace is not None and pace.is_more,
        "alone": None if pace is None else round(pace.alone_s, 4),
        "problems": list(verdict.problems),
        "notes": list(verdict.hints),
    }
