"""A stand-in for the Kubernetes API server: EndpointSlices of one namespace, over TLS, with the real watch protocol.

Lists have pages with `continue`; a watch is chunked, begins at a resourceVersion, and ends after `timeoutSeconds`, when
it is cut, or with 410 where the version was compacted away. What a client does against the rules is kept in
`violations`. Everything can be changed while it runs.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.support.certificates import Authority, server_wrap
from tests.support.kubernetes_objects import Json, node, status
from tests.support.origin import Origin, Peer, Stopped
from tests.support.wire import Request

NAMESPACE = "models"
SERVICE = "predict"
NODES = "/api/v1/nodes/"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
_POLL_S = 0.01
_PAGE = 2  # slices: less than is asked for, which the API allows, so that there are several pages


class KubernetesApi:
    """versions are numbers, as etcd's are. gone_in: how 410 is said to a watch, as an `event` or as a `status`. nodes:
    their zones, by name. told_at: when a slice was told last, in a list or a watch; monotonic seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "k8s-ca")
        self._files = self.authority.issue("k8s", "127.0.0.1")
        self._lock = threading.Lock()
        self._slices: dict[str, Json] = {}
        self._news: list[tuple[int, str, Json]] = []
        self._version = 100
        self._oldest = 100
        self._n_cuts = 0
        self.gone_in = "event"
        self.nodes: dict[str, str] = {}
        self.told_at: dict[str, float] = {}
        self.tokens = {"first"}
        self.violations: list[str] = []
        self.asked: list[str] = []  # "list", "watch VERSION", "401", ...
        self.token_path = folder / "token"
        self.write_token("first")
        self._origin = self._listen(0)
        self.port = self._origin.port

    def __enter__(self) -> KubernetesApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._origin.close()
        assert not self.violations, self.violations

    # --- what it has ------------------------------------------------------------------------------------------------

    def put(self, *slices: Json) -> None:
        """They are there now, or are changed."""
        with self._lock:
            for item in slices:
                name = _name(item)
                kind = "MODIFIED" if name in self._slices else "ADDED"
                self._slices[name] = self._say(kind, item)

    def delete(self, name: str) -> None:
        with self._lock:
            self._say("DELETED", self._slices.pop(name))

    def bookmark(self) -> None:
        """To every watch."""
        with self._lock:
            self._say("BOOKMARK", {"kind": "EndpointSlice", "metadata": {}})

    def compact(self) -> None:
        """Versions up to now are too old."""
        with self._lock:
            self._version += 1000
            self._oldest = self._version
            self._news.clear()

    def cut(self) -> None:
        """Every watch loses its connection."""
        with self._lock:
            self._n_cuts += 1

    def _say(self, kind: str, item: Json) -> Json:
        self._version += 1
        metadata = item["metadata"]
        assert isinstance(metadata, dict)
        made = {**item, "metadata": {**metadata, "resourceVersion": str(self._version)}}
        self._news.append((self._version, kind, made))
        return made

    # --- its clients ------------------------------------------------------------------------------------------------

    def write_token(self, token: str) -> None:
        """Where the kubeconfig looks for it, as the kubelet does."""
        part = self.token_path.with_suffix(".part")
        part.write_text(token)
        part.rename(self.token_path)

    def kubeconfig(self) -> str:
        path = self.folder / "kubeconfig"
        authority = base64.b64encode(Path(self.authority.ca).read_bytes()).decode()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": authority}
        data = {
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"tokenFile": self.token_path.name}}],
        }
        path.write_text(yaml.safe_dump(data))
        return str(path)

    def count(self, what: str) -> int:
        """How often somebody asked for `list`, for a `watch`, or got a status."""
        return sum(asked.split()[0] == what for asked in list(self.asked))

    def stop(self) -> None:
        """Nobody listens any more."""
        self._origin.close()

    def start(self) -> None:
        self._origin = self._listen(self.port)

    def _listen(self, port: int) -> Origin:
        return Origin(port=port, wrap=server_wrap(self._files), default=self._serve)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _serve(self, peer: Peer) -> None:
        while True:
            request = peer.read_request()
            parts = urlsplit(request.target)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            if (request.get("authorization") or "").removeprefix("Bearer ") not in self.tokens:
                self._refuse(peer, 401, "Unauthorized")
            elif parts.path.startswith(NODES) and parts.path[len(NODES) :] in self.nodes:
                self.asked.append("node")
                name = parts.path[len(NODES) :]
                peer.send(_answer(200, node(name, self.nodes[name])))
            elif parts.path != PATH:
                self._refuse(peer, 404, "the server could not find the requested resource")
            elif self._is_right(request, query):
                if "watch" in query:
                    self._watch(peer, query)
                else:
                    self._list(peer, query)

    def _is_right(self, request: Request, query: dict[str, str]) -> bool:
        wrong = [
            said
            for said, is_wrong in (
                ("no GET", request.method != "GET"),
                ("another label", query.get("labelSelector") != f"kubernetes.io/service-name={SERVICE}"),
                ("a watch without a version", "watch" in query and not query.get("resourceVersion")),
                ("a list without a limit", "watch" not in query and not query.get("limit")),
            )
            if is_wrong
        ]
        self.violations += [f"{said}: {request.target}" for said in wrong]
        return not wrong

    def _refuse(self, peer: Peer, code: int, message: str) -> None:
        self.asked.append(str(code))
        peer.send(_answer(code, status(code, message)))

    def _list(self, peer: Peer, query: dict[str, str]) -> None:
        self.asked.append("list")
        version, _, first = query.get("continue", "").partition("/")
        with self._lock:
            if version and int(version) < self._oldest:
                gone = True
            else:
                gone, begin = False, int(first or 0)
                items = list(self._slices.values())
                metadata = {"resourceVersion": str(self._version)}
                if begin + _PAGE < len(items):
                    metadata["continue"] = f"{self._version}/{begin + _PAGE}"
        if gone:
            self._refuse(peer, 410, "The provided continue parameter is too old")
        else:
            page = items[begin : begin + _PAGE]
            peer.send(_answer(200, {"kind": "EndpointSliceList", "metadata": metadata, "items": page}))
            self.told_at.update({_name(item): time.monotonic() for item in page})

    def _watch(self, peer: Peer, query: dict[str, str]) -> None:
        version = int(query["resourceVersion"])
        self.asked.append(f"watch {version}")
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        n_cuts, is_gone = self._n_cuts, version < self._oldest
        too_old = status(410, f"too old resource version: {version} ({self._oldest})")
        if is_gone and self.gone_in == "status":
            self._refuse(peer, 410, str(too_old["message"]))
            return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        if is_gone:
            self.asked.append("410")
            _send_line(peer, {"type": "ERROR", "object": too_old})
            peer.send(b"0\r\n\r\n")
            return
        while time.monotonic() < deadline:
            if peer.is_abandoned or n_cuts != self._n_cuts:
                raise Stopped
            with self._lock:
                news = [item for item in self._news if item[0] > version]
                version = self._version
            for _, kind, item in news:
                _send_line(peer, {"type": kind, "object": item})
                if kind != "BOOKMARK":
                    self.told_at[_name(item)] = time.monotonic()
            time.sleep(_POLL_S)
        peer.send(b"0\r\n\r\n")


def _name(item: Json) -> str:
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["name"])


def _answer(code: int, value: Json) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _send_line(peer: Peer, value: Json) -> None:
    """In two chunks that end anywhere, as an API server's may."""
    line = json.dumps(value).encode() + b"\n"
    for part in (line[:17], line[17:]):
        peer.send(b"%x\r\n%s\r\n" % (len(part), part))
