"""Where the API server is, and what it is shown: a pod's service account, or a kubeconfig. Blocking reads only.

Everything is read anew for each request, since a service account's token is replaced every hour or so, and its CA may
be. Nothing is run and nothing is asked for: what a kubeconfig has beyond a token or a client certificate (`exec`
plug-ins, `auth-provider`, passwords) is refused, and so is what would weaken TLS.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml

from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_BYTES: Final = 1 << 20  # of each file
_REFUSED_OF_USER: Final = ("exec", "auth-provider", "username", "password", "as")
_REFUSED_OF_CLUSTER: Final = ("insecure-skip-tls-verify", "proxy-url")


class NoAccess(OSError):
    """It cannot be known where or who; with words for the user."""


@dataclass(frozen=True, slots=True)
class Access:
    """url: without a path's end. server_name: in its certificate, "" for the host of the url. ca, cert, key: PEM.

    ca b"": those that the system trusts.
    """

    url: str
    namespace: str
    token: str = field(default="", repr=False)
    ca: bytes = b""
    server_name: str = ""
    cert: bytes = b""
    key: bytes = field(default=b"", repr=False)


Read = Callable[[], Access]
"""Raises NoAccess, and OSError for a file that cannot be read."""


def reader(kubeconfig: str | None, context: str | None, environ: Mapping[str, str] = os.environ) -> Read:
    """What reads the access: a kubeconfig, if one is named, else a pod's service account, else the usual kubeconfig."""
    is_named = kubeconfig is not None or context is not None or environ.get("KUBECONFIG")
    if not is_named and "KUBERNETES_SERVICE_HOST" in environ:
        return lambda: in_cluster(environ)
    return lambda: outside(kubeconfig or _usual(environ), context)


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """As a pod has it. Raises OSError."""
    host = environ["KUBERNETES_SERVICE_HOST"]
    port = environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or environ.get("KUBERNETES_SERVICE_PORT") or "443"
    token = _text(folder / "token")
    if not token:
        raise NoAccess(f"{folder / 'token'} is empty")
    namespace = _text(folder / "namespace") or "default"
    return Access(
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace,
        token,
        _bytes(folder / "ca.crt"),
    )


def _usual(environ: Mapping[str, str]) -> str:
    """Where kubectl looks, too."""
    named = [path for path in environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    if len(named) > 1:
        raise NoAccess("KUBECONFIG names several files, which lbproxy does not merge; say which with `kubeconfig`")
    if named:
        return named[0]
    path = Path(environ.get("HOME") or "/", ".kube", "config")
    if not path.exists():
        raise NoAccess(f"this is no pod with a service account, and there is no {path}; say where one is: `kubeconfig`")
    return str(path)


def outside(path: str, context: str | None) -> Access:
    """As a kubeconfig has it. Raises OSError."""
    return _Kubeconfig(Path(path)).access(context)


class _Kubeconfig:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            data: object = yaml.safe_load(_bytes(path))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            raise NoAccess(f"{path}{place}: {getattr(error, 'problem', None) or 'this is no YAML'}") from None
        except RecursionError:
            raise NoAccess(f"{path}: this is nested too deeply") from None
        self._data = self._mapping(data, "the file")

    def access(self, context: str | None) -> Access:
        name = context or self._data.get("current-context")
        if not isinstance(name, str) or not name:
            raise self._wrong("there is no current-context; say which with `context`")
        chosen = self._named("contexts", "context", name)
        cluster = self._named("clusters", "cluster", self._word(chosen, "cluster", f"context {name}"))
        user_name = chosen.get("user")
        user = self._named("users", "user", user_name) if isinstance(user_name, str) else {}
        for key in _REFUSED_OF_USER:
            if user.get(key):
                raise self._wrong(
                    f"user {user_name} has `{key}`, which lbproxy does not do; use a token or a client "
                    "certificate, such as those of a service account"
                )
        for key in _REFUSED_OF_CLUSTER:
            if cluster.get(key):
                raise self._wrong(f"the cluster of context {name} has `{key}`, which lbproxy does not do")
        url = self._word(cluster, "server", f"the cluster of context {name}").rstrip("/")
        self._check_url(url)
        token = self._token(user)
        cert, key_pem = self._pem(user, "client-certificate"), self._pem(user, "client-key")
        if bool(cert) != bool(key_pem):
            raise self._wrong(f"user {user_name} has one of client-certificate and client-key, and both are needed")
        return Access(
            url,
            str(chosen.get("namespace") or "default"),
            token if url.startswith("https:") else "",  # it is for nobody's eyes
            self._pem(cluster, "certificate-authority"),
            str(cluster.get("tls-server-name") or ""),
            cert,
            key_pem,
        )

    def _check_url(self, url: str) -> None:
        """Raises NoAccess. Plain text is for `kubectl proxy` on this machine."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise self._wrong(f"{url!r} is no URL") from None
        if parts.scheme == "https" and host:
            return
        try:
            is_here = host == "localhost" or ip_address(host or "").is_loopback
        except ValueError:
            is_here = False
        if parts.scheme != "http" or not is_here:
            raise self._wrong(f"the server {url} is not reached by https")

    def _token(self, user: Mapping[str, object]) -> str:
        if user.get("tokenFile"):  # it stands over `token`, as kubectl has it
            return _text(self._beside(self._word(user, "tokenFile", "the user")))
        return self._word(user, "token", "the user").strip() if user.get("token") else ""

    def _pem(self, holder: Mapping[str, object], key: str) -> bytes:
        """What stands in KEY-data, or in the file KEY; b"" if neither does."""
        if holder.get(f"{key}-data"):
            try:
                return base64.b64decode(self._word(holder, f"{key}-data", "it"), validate=True)
            except binascii.Error:
                raise self._wrong(f"{key}-data is no base64") from None
        return _bytes(self._beside(self._word(holder, key, "it"))) if holder.get(key) else b""

    def _beside(self, path: str) -> Path:
        """Relative paths begin at the kubeconfig's folder."""
        return self._path.parent / path

    def _named(self, lists: str, key: str, name: str) -> Mapping[str, object]:
        items = self._data.get(lists)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and item.get("name") == name:
                return self._mapping(item.get(key), f"{key} {name}")
        raise self._wrong(f"there is no {key} {name}")

    def _word(self, holder: Mapping[str, object], key: str, what: str) -> str:
        value = holder.get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(f"{what} has no {key}")
        return value

    def _mapping(self, value: object, what: str) -> Mapping[str, object]:
        if not isinstance(value, dict):
            raise self._wrong(f"{what} is no mapping")
        return value

    def _wrong(self, what: str) -> NoAccess:
        return NoAccess(f"{self._path}: {what}")


def look_at(config: Config, base_dir: str | Path) -> Iterator[tuple[Unusable, bool]]:
    """What is wrong with the kubeconfigs that a config names, and whether it may pass, as a file that is not there."""
    for name, pool in config.pools.items():
        kubernetes = None if pool.discovery is None else pool.discovery.kubernetes
        if kubernetes is None or kubernetes.kubeconfig is None:
            continue
        place = ("pools", name, "discovery", "kubernetes", "kubeconfig")
        try:
            tls_context(outside(str(Path(base_dir) / kubernetes.kubeconfig), kubernetes.context))
        except NoAccess as wrong:
            yield Unusable(place, str(wrong)), False
        except OSError as failure:
            yield Unusable(place, f"{failure.filename}: {failure.strerror}"), True


def tls_context(access: Access) -> ssl.SSLContext:
    """What TLS to the API server goes by. Raises NoAccess."""
    try:
        context = ssl.create_default_context(cadata=access.ca.decode("latin-1") if access.ca else None)
    except ssl.SSLError as error:
        raise NoAccess(f"the CA of the API server is no PEM certificate: {error.reason or error}") from None
    if access.cert:
        try:
            _load(context, access.cert + b"\n" + access.key)
        except ssl.SSLError as error:
            raise NoAccess(f"the client certificate or its key cannot be used: {error.reason or error}") from None
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """ssl takes files only; this one is in memory."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        found = file.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise NoAccess(f"{path} has more than {MAX_BYTES >> 20} MiB")
    return found


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise NoAccess(f"{path} is no ASCII text") from None
