"""Asks every server of a config, within bounds: AT_ONCE servers at a time, a time-out for every question.

After the pool's own health check a server gets two to five GET requests, then silence, to see whether it ends a kept
connection. More is sent only if the caller gives a request to try: then one server after the other is loaded, so that
servers of one machine do not slow each other down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lbproxy.address import Address, authority
from lbproxy.config.certificates import FileProblem
from lbproxy.config.model import Config
from lbproxy.config.pool_model import HealthCheck, Pool, PoolTls
from lbproxy.config.problems import Path as KeyPath
from lbproxy.config.problems import Unusable
from lbproxy.config.tls_checks import absolute
from lbproxy.control.discovery.dns import ThreadResolver
from lbproxy.control.probe import ProbeSpec, Verdict, probe
from lbproxy.dataplane.tls_settings import PoolTlsFiles, PoolTlsSettings
from lbproxy.doctor import pace
from lbproxy.doctor.http2 import ask_http2
from lbproxy.doctor.processes import workers
from lbproxy.doctor.talking import Line, NoAnswer, Question, Target, ask_once, dial
from lbproxy.doctor.verdict import HEALTH, Evidence, names_in, questions
from lbproxy.protocol.proxy_protocol import build

AT_ONCE: Final = 32
MOST_SERVERS: Final = 1024
Together = Callable[[int], Awaitable[list[float]]]
"""Sends so many requests at once; how long each took."""
_WELL_ENOUGH: Final = ("status", "body")  # a check failed, and yet an answer came


@dataclass(frozen=True, slots=True)
class Options:
    """timeout_s: of a question. idle_s: how long a connection is held. load: what to try, at_most so many at once."""

    timeout_s: float
    idle_s: float
    load: Question | None = None
    at_most: int = 16


@dataclass(slots=True)
class Patient:
    """One server of a pool at one of its addresses, and what was seen of it. name: as in the config."""

    pool: str
    name: str
    address: Address
    host: str
    evidence: Evidence = field(default_factory=Evidence)


def too_many(config: Config, pools: Sequence[str]) -> int:
    """How many servers there are, if those are more than can be asked in one run; else 0."""
    count = sum(len(config.pools[name].servers) for name in pools)
    return count if count > MOST_SERVERS else 0


async def examine(config: Config, pools: Sequence[str], options: Options, *, base_dir: str) -> list[Patient]:
    """All servers of these pools, in the order of the file. Raises Unusable for a certificate that can't be read."""
    manners = {name: _Manners.of(name, config.pools[name], base_dir) for name in pools}
    only_tcp = _only_tcp(config)
    patients: list[Patient] = []
    resolve = ThreadResolver(options.timeout_s)
    for name in pools:
        for patient in [
            Patient(name, spec.name, spec.address, spec.address.host) for spec in config.pools[name].servers
        ]:
            patients += await _at_each_address(patient, resolve)
    del patients[MOST_SERVERS:]
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(patient: Patient) -> None:
        async with turns:
            await _examine(patient, manners[patient.pool], options, is_tcp=patient.pool in only_tcp)

    async with asyncio.TaskGroup() as group:
        for patient in patients:
            if not patient.evidence.unreachable:
                group.create_task(ask(patient))
    pids = workers([patient.address for patient in patients if not patient.evidence.unreachable])
    for patient in patients:
        patient.evidence.pids = pids.get(patient.address, ())
    if options.load is not None:
        for patient in patients:
            if patient.evidence.replies:
                await _load(patient, manners[patient.pool], options.load, options.at_most)
    return patients


def _only_tcp(config: Config) -> set[str]:
    """Pools to which only connections are passed: nobody knows what is spoken there."""
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for listener in config.listeners:
        used[listener.mode == "tcp"] |= {name for route in listener.effective_routes() for name in route.pools}
    return used[True] - used[False]


async def _at_each_address(patient: Patient, resolve: ThreadResolver) -> list[Patient]:
    if patient.address.is_literal:
        return [patient]
    host = patient.host
    try:
        found = await resolve(host)
    except OSError as error:
        patient.evidence.unreachable = f"{host}: {error.strerror or error}; is the name right?"
        return [patient]
    return [
        Patient(
            patient.pool,
            patient.name if len(found) == 1 else f"{patient.name} ({ip})",
            replace(patient.address, host=ip),
            host,
        )
        for ip in found
    ]


@dataclass(frozen=True, slots=True)
class _Manners:
    """How a pool's servers are spoken to. patience_s: for an answer to a request of clients."""

    check: HealthCheck
    spec: ProbeSpec
    tls: PoolTlsSettings | None
    http2_tls: PoolTlsSettings | None
    introduction: bytes
    patience_s: float
    protocol: str

    @classmethod
    def of(cls, name: str, pool: Pool, base_dir: str) -> _Manners:
        check = pool.health_check or HealthCheck()
        tls = _tls(pool.tls, ("pools", name, "tls"), base_dir)
        own = check.tls if "tls" in check.model_fields_set else pool.tls
        check_tls = tls if own == pool.tls else _tls(own, ("pools", name, "health_check", "tls"), base_dir)
        introduction = build(pool.proxy_protocol, None, None, is_check=True) if pool.proxy_protocol != "off" else b""
        patience_s = pool.timeouts.connect + pool.timeouts.response_head
        return cls(
            check,
            ProbeSpec.from_config(check, pool.proxy_protocol, check_tls, pool.protocol),
            tls,
            _tls(pool.tls, ("pools", name, "tls"), base_dir, ("h2",)),
            introduction,
            patience_s,
            pool.protocol,
        )

    def target(self, patient: Patient, timeout_s: float) -> Target:
        tls = self.tls
        return Target(
            patient.address,
            self.check.host or authority(patient.host, patient.address.port),
            timeout_s,
            tls.context if tls is not None else None,
            (tls.name_of(patient.host) or "") if tls is not None else "",
            self.introduction,
        )


def _tls(config: PoolTls | None, path: KeyPath, base_dir: str, alpn: tuple[str, ...] = ()) -> PoolTlsSettings | None:
    if config is None:
        return None
    ca, cert, key = (
        None if file is None else absolute(file, base_dir) for file in (config.ca, config.cert, config.key)
    )
    files = PoolTlsFiles(config.verify, ca, config.server_name, cert, key, alpn)
    try:
        return PoolTlsSettings(files, files.load())
    except FileProblem as error:
        raise Unusable((*path, error.key), str(error)) from None


async def _examine(patient: Patient, manners: _Manners, options: Options, *, is_tcp: bool) -> None:
    seen = patient.evidence
    result = await probe(manners.spec.named(patient.host), patient.address)
    seen.check = result.why
    if result.verdict is not Verdict.PASS:
        if result.reason in _WELL_ENOUGH or manners.spec.port is not None:
            seen.is_check_failed = True
        elif await _has_http2(seen, manners, manners.target(patient, options.timeout_s), result.verdict):
            return
        else:
            seen.unreachable = f"{result.why}{_what_to_do(result.verdict)}"
            return
    if is_tcp:
        return
    line: Line | None = None
    target = manners.target(patient, options.timeout_s)
    if manners.protocol == "h2":
        if not await _has_http2(seen, manners, target, result.verdict):
            seen.trouble = "it does not speak HTTP/2 on this port, and `protocol` of the pool says so"
        return
    try:
        line = await _question(seen, manners, target)
        if line is not None and options.idle_s > 0:
            seen.held_s = options.idle_s
            seen.closed_after_s = await line.silence(options.idle_s)
    except NoAnswer as error:
        if seen.replies:
            seen.trouble = str(error)
        elif not await _has_http2(seen, manners, target, result.verdict):
            seen.trouble = f"{error}; does it speak HTTP/1.1 on this port?"
    finally:
        if line is not None:
            line.close()


async def _has_http2(seen: Evidence, manners: _Manners, target: Target, checked: Verdict) -> bool:
    """Does it speak HTTP/2? Only servers are asked that do not speak HTTP/1.1, which take this for rubbish."""
    if checked in (Verdict.REFUSED, Verdict.TIMEOUT):
        return False
    tls = manners.http2_tls
    try:
        seen.http2 = await ask_http2(target, tls.context if tls is not None else None)
    except NoAnswer:
        return False
    return True


def _what_to_do(verdict: Verdict) -> str:
    if verdict is Verdict.REFUSED:
        return "; is the server started, and is this its port?"
    if verdict is Verdict.TIMEOUT:
        return "; is the address right, does a firewall drop what is sent, is the server stuck?"
    return ""


async def _question(seen: Evidence, manners: _Manners, target: Target) -> Line | None:
    """Fill in the replies. Returns the connection if it is still open and unused. Raises NoAnswer."""
    first = manners.check.path if manners.check.type == "http" and manners.check.port is None else HEALTH
    line: Line | None = None
    paths = [first]
    try:
        for number, path in _growing(paths):
            is_second = line is not None
            if line is None:
                line = await dial(target)
            reply = await line.ask(Question(path, headers=manners.check.headers))
            if is_second:
                seen.is_reused = True
            seen.ids |= names_in(reply)
            seen.replies[path] = reply
            if number == 0:
                paths += [other for other in questions(seen.replies) if other != first] or [first]
            if not reply.is_kept:
                line.close()
                line = None
        return line
    except BaseException:  # also cancelled: nobody else knows of this connection
        if line is not None:
            line.close()
        raise


def _growing(paths: list[str]) -> Iterator[tuple[int, str]]:
    """The items of a list that becomes longer meanwhile."""
    number = 0
    while number < len(paths):
        yield number, paths[number]
        number += 1


async def _load(patient: Patient, manners: _Manners, question: Question, at_most: int) -> None:
    """Send the request alone, then several together."""
    seen, target = patient.evidence, manners.target(patient, manners.patience_s)
    clock = asyncio.get_running_loop().time
    sent = 0
    names: set[str] = set()

    async def once() -> float:
        nonlocal sent
        sent += 1
        began = clock()
        reply = await ask_once(target, question)
        took = clock() - began
        if reply.status >= 400:
            raise NoAnswer(f"answered {reply.status} to {question.method} {question.path}")
        names.update(names_in(reply))
        return took

    async def together(count: int) -> list[float]:
        took: list[float] = []

        async def one() -> None:
            took.append(await once())

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(one())
        except* NoAnswer as errors:
            raise NoAnswer(f"{errors.exceptions[0]} (of {count} at once)") from None
        return took

    try:
        alone_s = min([await once() for _ in range(pace.ALONE)])
        seen.pace = await _pace(alone_s, together, at_most)
        seen.pace = replace(seen.pace, requests=sent)
    except NoAnswer as error:
        seen.pace = pace.Pace(None, is_more=False, alone_s=0.0, requests=sent, failed=str(error))
    seen.ids |= names


async def _pace(alone_s: float, together: Together, at_most: int) -> pace.Pace:
    if alone_s < pace.SHORTEST_S:
        return pace.Pace(None, is_more=False, alone_s=alone_s, requests=0)
    passed = 1
    for count in pace.levels(at_most):
        took = await together(count)
        for _ in range(pace.AGAIN):  # something else may have had the processor
            if not pace.is_as_alone(alone_s, took):
                took = min(took, await together(count), key=max)
        if not pace.is_as_alone(alone_s, took):
            return pace.Pace(pace.at_once(alone_s, took, passed), is_more=False, alone_s=alone_s, requests=0)
        passed = count
    return pace.Pace(passed, is_more=True, alone_s=alone_s, requests=0)
