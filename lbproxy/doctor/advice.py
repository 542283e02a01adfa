"""The lines of a config that fit the servers of a pool, less those that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lbproxy.config.pool_model import Pool
from lbproxy.doctor.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Advice:
    """lines: keys below the pool, with dots, and values as a config file has them. problems make an exit status."""

    lines: Mapping[str, str | int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def advise(pool: Pool, own: Collection[str], verdicts: Sequence[Verdict]) -> Advice:
    """own: the keys that stand in the file for this pool, with dots. verdicts: of its servers that could be asked."""
    known = [verdict for verdict in verdicts if verdict.what]
    kinds = sorted({verdict.kind or verdict.what for verdict in known})
    if len(kinds) > 1:
        return Advice(hints=(f"its servers are of different kinds ({', '.join(kinds)}): make a pool for each",))
    if not known:
        return Advice()
    kind = known[0].kind
    problems = [f"the config says kind {pool.kind}, and its servers are {kind}"] if _is_wrong(pool.kind, kind) else []
    fitting = Pool.model_validate({"servers": ["any:1"], **({"kind": kind} if kind else {})})
    lines: dict[str, str | int] = {}
    if kind is not None and kind != pool.kind:
        lines["kind"] = kind
    for key, value in _wanted(pool, kind, known):
        in_force = _value(pool if key in own or kind == pool.kind or kind is None else fitting, key)
        is_asked_for = key == "max_inflight" and key not in own and kind in ("gunicorn-sync", "gunicorn-gthread")
        if value != in_force or is_asked_for:  # without it `lbproxy check` warns
            lines[key] = _written(key, value)
    return Advice(lines, tuple(problems))


def _is_wrong(said: str | None, found: str | None) -> bool:
    return said is not None and found is not None and said != found


def _wanted(pool: Pool, kind: str | None, known: Sequence[Verdict]) -> Iterator[tuple[str, object]]:
    """Keys and what each should be, as the model has it."""
    if all(verdict.speaks_http2 for verdict in known):
        if pool.protocol == "h1":
            yield "protocol", "h2"
        check = pool.health_check
        if check is not None and check.type != "grpc" and all(verdict.checks_grpc for verdict in known):
            yield "health_check", "grpc"
        return
    limits = [verdict.max_inflight for verdict in known]
    has_own = all(server.max_inflight is not None for server in pool.servers)
    if None not in limits and not has_own:
        yield "max_inflight", min(limit for limit in limits if limit is not None)
    idle = [verdict.idle_timeout_s for verdict in known if verdict.idle_timeout_s is not None]
    keep_alive = pool.keep_alive
    if any(verdict.is_shared for verdict in known):
        if kind != "gunicorn-sync":  # its kind says so
            yield "keep_alive", None
    elif idle and keep_alive is not None and (keep_alive.idle_timeout > min(idle) or kind != pool.kind):
        yield "keep_alive.idle_timeout", min(idle)
    check = pool.health_check
    says_path = kind in ("triton", "vllm", "tgi")
    if not says_path and check is not None and check.type == "tcp" and not check.send:
        paths = {verdict.health_path for verdict in known}
        if len(paths) == 1 and None not in paths:
            yield "health_check", paths.pop()


def _value(pool: Pool, key: str) -> object:
    value: object = pool
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _written(key: str, value: object) -> str | int:
    if value is None:
        return "off"
    if isinstance(value, float):
        return f"{value:g}s"
    return value if isinstance(value, int) else str(value)


def yaml_lines(pools: Mapping[str, Mapping[str, str | int]]) -> list[str]:
    """The advice for pools as it is pasted into a config file, none if there is none."""
    lines = []
    for name, settings in pools.items():
        if settings:
            lines.append(f"  {name}:")
        for key, value in settings.items():
            section, dot, inner = key.partition(".")
            lines.append(f"    {section}: {{{inner}: {value}}}" if dot else f"    {key}: {value}")
    return ["pools:", *lines] if lines else []
