"""What concerns TLS: keys that need each other, and the files that they name.

The files are looked at only where the config is going to be used (`run`, `check`): a command that merely wants the
admin address may run as a user who can't read the keys.
"""

from __future__ import annotations

import time
from pathlib import Path as FilePath
from typing import Any, Final

from lbproxy.config.certificates import Certificate, FileProblem, client_context, read_certificate, server_context
from lbproxy.config.listener_model import Listener, ListenerTls
from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool, PoolTls
from lbproxy.config.problems import Path
from lbproxy.config.source import Document
from lbproxy.config.units import is_off

_NO_TLS: Final = "has no effect: there is no `tls` here"
_ALPN_IN_HTTP: Final = {"h2": "h2", "http/1.1": "h1", "http/1.0": "h1"}
"""What can be offered there, and which of `protocols` it is."""
_NOT_CHECKED: Final = "servers are not authenticated: whoever is on the way can read and change everything"


def check_tls(config: Config, data: Any, document: Document) -> None:
    """Keys that need or exclude each other."""
    for index, listener in enumerate(config.listeners):
        raw = data["listeners"][index]
        if isinstance(raw, dict):
            _check_listener(listener, raw, ("listeners", index), document)
    for name, pool in config.pools.items():
        raw = data["pools"][name]
        if isinstance(raw, dict):
            _check_pool(pool, raw, ("pools", name), document)


def _has(raw: Any, section: str, key: str) -> bool:
    return isinstance(raw.get(section), dict) and key in raw[section]


def _check_listener(listener: Listener, raw: Any, path: Path, document: Document) -> None:
    tls = listener.tls
    if tls is None:
        for section, key in (("timeouts", "tls_handshake"), ("limits", "handshakes")):
            if _has(raw, section, key) and is_off(raw.get("tls", "off")):
                document.warn((*path, section, key), _NO_TLS, at_key=True)
        return
    place: Path = (*path, "tls")
    if tls.cert is None and tls.key is None and not tls.certs:
        document.object_to(place, "needs `cert` and `key`, or `certs`")
    _check_both(tls, place, document)
    if tls.client_verify != "off" and tls.client_ca is None:
        message = "needs `client_ca`, the file of the CA that signs the certificates of clients"
        document.object_to((*place, "client_verify"), message)
    if tls.client_verify == "off" and tls.client_ca is not None:
        document.warn(
            (*place, "client_ca"), "has no effect", "set `client_verify: required` or `optional`", at_key=True
        )
    if listener.mode == "http":
        for position, protocol in enumerate(tls.alpn):
            if protocol not in _ALPN_IN_HTTP:
                message = f"lbproxy does not speak {protocol} in HTTP mode"
                document.object_to((*place, "alpn", position), message, "use mode: tcp, h2 or http/1.1")
            elif _ALPN_IN_HTTP[protocol] not in listener.protocols:
                message = f"{protocol} is not among the `protocols` of this listener"
                document.object_to((*place, "alpn", position), message, "leave `alpn` out, or say the same in both")


def _check_both(tls: ListenerTls | PoolTls, place: Path, document: Document) -> None:
    if (tls.cert is None) != (tls.key is None):
        there, missing = ("cert", "key") if tls.key is None else ("key", "cert")
        document.object_to((*place, there), f"needs `{missing}` too", at_key=True)


def _check_pool(pool: Pool, raw: Any, path: Path, document: Document) -> None:
    if pool.tls is None and _has(raw, "timeouts", "tls_handshake") and is_off(raw.get("tls", "off")):
        document.warn((*path, "timeouts", "tls_handshake"), _NO_TLS, at_key=True)
    check = pool.health_check
    own = check.tls if check is not None and "tls" in check.model_fields_set else None
    for tls, place in ((pool.tls, (*path, "tls")), (own, (*path, "health_check", "tls"))):
        if tls is None:
            continue
        _check_both(tls, place, document)
        if not tls.verify:
            document.warn((*place, "verify"), _NOT_CHECKED, "set `ca` instead")
            if tls.ca is not None:
                document.warn((*place, "ca"), "has no effect with `verify: false`", at_key=True)
        elif tls.server_name is None and any(server.address.is_unix for server in pool.servers):
            document.object_to(place, "a server on a unix socket has no name to verify", "set `server_name`")


# --- files ----------------------------------------------------------------------------------------------------------


def check_files(config: Config, document: Document, base_dir: str | FilePath) -> None:
    """Read every file that a `tls` names. base_dir: where relative paths start."""
    now = time.time()
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            _check_listener_files(listener, listener.tls, ("listeners", index), document, base_dir, now)
    for name, pool in config.pools.items():
        check = pool.health_check
        own = check.tls if check is not None and "tls" in check.model_fields_set else None
        for tls, section in ((pool.tls, ("tls",)), (own, ("health_check", "tls"))):
            if tls is not None:
                _check_pool_files(tls, ("pools", name, *section), document, base_dir, now)


def absolute(path: str, base_dir: str | FilePath) -> str:
    """The path as seen from the config file."""
    return str(FilePath(base_dir) / path)


def _absolute(path: str | None, base_dir: str | FilePath) -> str | None:
    return None if path is None else absolute(path, base_dir)


def _check_listener_files(
    listener: Listener, tls: ListenerTls, path: Path, document: Document, base_dir: str | FilePath, now: float
) -> None:
    pairs: list[tuple[Path, str, str]] = []
    if tls.cert is not None and tls.key is not None:
        pairs.append(((*path, "tls"), tls.cert, tls.key))
    pairs += [((*path, "tls", "certs", index), item.cert, item.key) for index, item in enumerate(tls.certs)]
    found: list[Certificate] = []
    for place, cert, key in pairs:
        try:
            _, certificate = server_context(
                absolute(cert, base_dir),
                absolute(key, base_dir),
                min_version=tls.min_version,
                alpn=(),
                client_ca=None,
                client_verify="off",
            )
        except FileProblem as problem:
            _object(problem, place, document)
            continue
        found.append(certificate)
        _warn_of_dates(certificate, (*place, "cert"), document, now)
    if tls.client_ca is not None:
        try:
            client_context(verify=True, ca=absolute(tls.client_ca, base_dir), cert=None, key=None)
            certificate = read_certificate("client_ca", absolute(tls.client_ca, base_dir))
            _warn_of_dates(certificate, (*path, "tls", "client_ca"), document, now)
        except FileProblem as problem:
            _object(FileProblem("client_ca", problem.message, problem.suggestion), (*path, "tls"), document)
    if len(found) == len(pairs):
        _check_names(listener, found, path, document)


def _check_names(listener: Listener, found: list[Certificate], path: Path, document: Document) -> None:
    """A route for a host that no certificate is for can be reached only by clients that ignore that."""
    names = {name for certificate in found for name in certificate.names}
    for index, route in enumerate(listener.routes):
        host = route.match.host if route.match is not None else None
        if host is not None and host not in names and "*." + host.partition(".")[2] not in names:
            document.warn((*path, "routes", index, "match", "host"), f"no certificate of this listener is for {host}")


def _check_pool_files(tls: PoolTls, path: Path, document: Document, base_dir: str | FilePath, now: float) -> None:
    files = {name: _absolute(getattr(tls, name), base_dir) for name in ("ca", "cert", "key")}
    try:
        client_context(verify=tls.verify, ca=files["ca"], cert=files["cert"], key=files["key"])
        for name in ("ca", "cert"):
            file = files[name]
            if file is not None:
                _warn_of_dates(read_certificate(name, file), (*path, name), document, now)
    except FileProblem as problem:
        _object(problem, path, document)


def _object(problem: FileProblem, place: Path, document: Document) -> None:
    document.object_to((*place, problem.key), problem.message, problem.suggestion)


def _warn_of_dates(certificate: Certificate, path: Path, document: Document, now: float) -> None:
    if complaint := certificate.complaint(now):
        document.warn(path, f"{certificate.path}: {complaint}", "renew it")
