"""What a server is and does, concluded from what was seen of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from lbproxy.doctor.answer import Reply
from lbproxy.doctor.http2 import Http2Answer
from lbproxy.doctor.pace import Pace

# Paths that only certain servers know; nobody else is asked for them.
TRITON: Final = "/v2"
MODELS: Final = "/v1/models"
VERSION: Final = "/version"
TGI: Final = "/info"
HEALTH: Final = "/health"

# Seconds after which a program closes idle connections as it comes, and how much later it may look.
_IDLE_S: Final[Mapping[str, tuple[float, float]]] = {
    "gunicorn-gthread": (2.0, 1.5),
    "uvicorn": (5.0, 1.5),
    "vllm": (5.0, 1.5),
    "waitress": (120.0, 35.0),
}
_ONE_PORT: Final = "lbproxy sees one server and can't choose among them: give each a port of its own (docs/topology.md)"
_PROXIES: Final = ("nginx", "envoy", "haproxy", "apache", "caddy", "traefik", "istio", "cloudflare", "awselb")
_SHOWN: Final = 80


@dataclass(slots=True)
class Evidence:
    """What was seen of one server.

    unreachable: why it could not be asked anything. check: what its health check said. trouble: why asking ended
    early. replies: by path. http2: of a server that speaks that, and not HTTP/1.1. is_reused: whether a second request
    on a connection was answered, None if that was not tried. closed_after_s: when it closed an idle connection, None
    if it did not within held_s (0: not tried). pids: who listens, if that is known. ids: what answers call the worker
    that gave them.
    """

    unreachable: str = ""
    check: str = ""
    is_check_failed: bool = False
    trouble: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    is_reused: bool | None = None
    closed_after_s: float | None = None
    held_s: float = 0.0
    pids: tuple[int, ...] = ()
    ids: frozenset[str] = frozenset()
    pace: Pace | None = None
    http2: Http2Answer | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """kind: for the pool, None if no kind fits. what, why: for people. idle_timeout_s: None if that of the kind fits.

    health_path: where it says that it is well. speaks_http2: and not HTTP/1.1. checks_grpc: grpc.health.v1 says that it
    serves. is_shared: several workers have this port. problems make an exit status.
    """

    kind: str | None = None
    what: str = ""
    why: str = ""
    max_inflight: int | None = None
    idle_timeout_s: float | None = None
    health_path: str | None = None
    is_shared: bool = False
    speaks_http2: bool = False
    checks_grpc: bool = False
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def judge(seen: Evidence) -> Verdict:
    """The whole of it."""
    problems = [text for text in (seen.unreachable, seen.trouble) if text]
    if seen.is_check_failed:
        problems.append(f"its health check fails: it {seen.check}")
    if seen.pace is not None and seen.pace.failed:
        problems.append(f"the requests of --probe failed: {seen.pace.failed}")
    if seen.http2 is not None:
        return _of_http2(seen, seen.http2, tuple(problems))
    if not seen.replies:
        return Verdict(problems=tuple(problems))
    kind, what, why = identify(seen)
    shared = list(_shared(seen, kind))
    health = seen.replies.get(HEALTH)
    return Verdict(
        kind,
        what,
        why,
        max_inflight=_limit(seen, kind),
        idle_timeout_s=_idle_timeout(kind, seen.closed_after_s),
        health_path=HEALTH if health is not None and health.status == 200 else None,
        is_shared=bool(shared),
        problems=tuple(problems),
        hints=(*shared, *_hints(seen, kind)),
    )


def _of_http2(seen: Evidence, answer: Http2Answer, problems: tuple[str, ...]) -> Verdict:
    """Of a server that speaks HTTP/2 only. Whoever shares its port does so by connection, of which lbproxy has few."""
    name = answer.server or ("a server of gRPC" if answer.is_grpc else "a server of HTTP/2")
    streams = "any number of requests" if answer.streams is None else f"{answer.streams} requests"
    why = f"it speaks HTTP/2, {streams} at once on a connection"
    if answer.is_grpc:
        why += f"; grpc.health.v1: it {answer.says}"
    shared = list(_shared(seen, None))
    return Verdict(
        None,
        name,
        why,
        is_shared=bool(shared),
        speaks_http2=True,
        checks_grpc=answer.is_serving,
        problems=problems,
        hints=tuple(shared),
    )


def program(replies: Mapping[str, Reply]) -> str:
    """The Server field, "" without one."""
    name = next((name for reply in replies.values() if (name := reply.fields.get("server", ""))), "")[:_SHOWN]
    return name if name.isprintable() else repr(name)


def questions(replies: Mapping[str, Reply]) -> tuple[str, ...]:
    """Which paths are worth asking for, after the first answer."""
    name = program(replies).lower()
    if name.startswith("uvicorn"):
        return (MODELS, VERSION)
    return () if name else (TRITON, TGI, MODELS)


def identify(seen: Evidence) -> tuple[str | None, str, str]:
    """Kind, name and evidence."""
    server = program(seen.replies)
    told = f"Server: {server}" if server else "no Server field"
    of_its_own = _by_its_own_paths(seen.replies, server)
    if of_its_own is not None:
        return of_its_own
    name = server.lower()
    if name.startswith("gunicorn"):
        if any(reply.is_kept for reply in seen.replies.values()):
            return "gunicorn-gthread", "gunicorn, gthread workers", f"{told}; it keeps connections"
        return "gunicorn-sync", "gunicorn, sync workers", f"{told}; it closes each connection after the answer"
    for kind in ("uvicorn", "waitress"):
        if name.startswith(kind):
            return kind, kind, told
    return None, server or "a program that does not say what it is", told


def _by_its_own_paths(replies: Mapping[str, Reply], server: str) -> tuple[str, str, str] | None:
    metadata = _object(replies, TRITON)
    if metadata.get("name") == "triton":
        return "triton", f"Triton {_text(metadata.get('version'))}".rstrip(), f"GET {TRITON} says so"
    info = _object(replies, TGI)
    if "max_concurrent_requests" in info and ("max_best_of" in info or "max_stop_sequences" in info):
        return "tgi", f"text-generation-inference {_text(info.get('version'))}".rstrip(), f"GET {TGI} says so"
    version = _text(_object(replies, VERSION).get("version"))
    models = _object(replies, MODELS).get("data")
    owners = [item.get("owned_by") for item in models if isinstance(item, dict)] if isinstance(models, list) else []
    if "vllm" in owners:
        return "vllm", f"vLLM {version}".rstrip(), f"GET {MODELS}: owned by vllm"
    asked = replies.get(MODELS)
    if version and asked is not None and asked.status == 401 and server.lower().startswith("uvicorn"):
        return "vllm", f"vLLM {version}", f"GET {VERSION} answers, and GET {MODELS} wants a key: very likely"
    return None


def _object(replies: Mapping[str, Reply], path: str) -> Mapping[str, object]:
    reply = replies.get(path)
    return reply.object() if reply is not None and reply.status == 200 else {}


def _text(value: object) -> str:
    """A word that a server said, harmless in a terminal."""
    return value[:_SHOWN] if isinstance(value, str) and value.isprintable() else ""


def _limit(seen: Evidence, kind: str | None) -> int | None:
    if seen.pace is not None and seen.pace.at_once is not None and not seen.pace.is_more:
        return seen.pace.at_once
    if kind == "gunicorn-sync" and seen.pids:
        return len(seen.pids)
    told = _object(seen.replies, TGI).get("max_concurrent_requests")
    is_told = kind == "tgi" and isinstance(told, int) and not isinstance(told, bool) and 0 < told <= 1_000_000
    return told if is_told and isinstance(told, int) else None


def _idle_timeout(kind: str | None, closed_after_s: float | None) -> float | None:
    """What `keep_alive.idle_timeout` should be, None if what there is will do.

    Servers look at their connections now and then, so they close late: the truth is up to a second below what was seen.
    """
    if closed_after_s is None:
        return None
    usual = _IDLE_S.get(kind or "")
    if usual is not None and usual[0] - 0.25 <= closed_after_s <= usual[0] + usual[1]:
        return None
    safe = 0.8 * (closed_after_s - 1.0) if closed_after_s > 2.0 else 0.5 * closed_after_s
    return max(0.1, int(safe * 10) / 10)


def _shared(seen: Evidence, kind: str | None) -> Iterator[str]:
    """Sentences by which several workers have this port, the surest first."""
    at_once = seen.pace.at_once if seen.pace is not None else None
    if len(seen.pids) > 1:
        pids = ", ".join(map(str, seen.pids[:8])) + (", ..." if len(seen.pids) > 8 else "")
        yield f"{len(seen.pids)} processes ({pids}) share this port; {_ONE_PORT}"
    elif len(seen.ids) > 1:
        yield f"its answers come from {len(seen.ids)} workers ({', '.join(sorted(seen.ids)[:8])}); {_ONE_PORT}"
    elif kind == "gunicorn-sync" and at_once is not None and at_once > 1:
        yield f"sync workers take one request each, so at least {at_once} share this port; {_ONE_PORT}"


def _hints(seen: Evidence, kind: str | None) -> Iterator[str]:
    name = program(seen.replies).lower()
    if name.startswith("werkzeug"):
        yield "this is Flask's development server: serve it with gunicorn or waitress"
    elif name.startswith(_PROXIES):
        yield "another proxy answers in place of the server: point lbproxy to the server itself"
    if kind == "gunicorn-sync" and seen.pace is None and not seen.pids:
        yield "how many workers there are is not known: --probe tells"
    elif kind == "gunicorn-gthread" and seen.pace is None:
        yield "how many threads there are is not known: --probe tells"
    if seen.pace is not None and seen.pace.is_more:
        yield f"it takes {seen.pace.at_once} requests at once or more; --at-most tries more"


def names_in(reply: Reply) -> frozenset[str]:
    """What an answer calls the worker that gave it: a field or a key such as `pid`."""
    found = {f"{key} {_word(value)}" for key, value in reply.object().items() if key.lower() in _WORKER_KEYS}
    found |= {f"{key} {_word(value)}" for key, value in reply.fields.items() if key in _WORKER_FIELDS}
    return frozenset(name for name in found if not name.endswith(" "))


def _word(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


_WORKER_KEYS: Final = frozenset({"pid", "worker", "worker_id", "worker_pid", "process_id"})
_WORKER_FIELDS: Final = frozenset({"x-worker", "x-worker-id", "x-worker-pid", "x-pid", "x-process-id"})
