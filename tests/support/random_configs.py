"""Configs made by chance, of every key that a reload can change, and requests that tell them apart.

`Maker.make` is a config whose servers exist. Which keys it has is by chance, but each key is in TRIED, or LEFT_OUT says
why it is not: `keys()` are all that there are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from lbproxy.api_keys import hash_of
from lbproxy.config.http_rules import Match, Route
from lbproxy.config.listener_model import Listener
from lbproxy.config.model import Config as Model
from lbproxy.config.pool_model import Pool

Config = dict[str, Any]
KEYS: Final = {"team-a": "a" * 43, "team-b": "b" * 43}
LEFT_OUT: Final = {
    "workers": "takes an upgrade; workers/test_succession.py",
    "watch": "how a reload begins, not what it changes; test_reload.py",
    "state_file": "a process that was just started has no past; test_state_file.py",
    "admin": "the test asks there; test_reload.py moves it",
    "access_log": "test_reload.py and test_reload_killed.py open others",
    "tests": "a run does not look at them",
    "listeners.bind": "its identity: another one is another listener, which `name` tries too",
    "listeners.mode_bits": "of unix sockets; test_reload.py",
    "listeners.tls": "test_reload_load.py and tls/test_reload.py swap certificates",
    "pools.discovery": "needs another program; control/discovery",
    "pools.protocol": "the servers here speak HTTP/1; test_http2_clients.py",
    "pools.tls": "the servers here speak plain HTTP; tls/test_reload.py",
    "pools.proxy_protocol": "the servers here understand no such header; tls/test_proxy_protocol.py",
}
_ROOT: Final[dict[str, list[Any]]] = {
    "trusted_proxies": [["10.0.0.0/8"], ["10.0.0.0/8", "192.0.2.0/24"]],
    "limits": [{"connections": 100}, {"buffered_bytes": "64MiB"}],
    "log": [{"level": "debug"}, {"level": "info", "format": "text"}],  # less says nobody where it listens
    "shutdown": [{"delay": "0s", "grace": "5s"}, {"grace": "6s"}],
    "rate_limits": [
        [{"name": "all", "key": "all", "rate": "1000/s", "burst": 500}],
        [{"name": "a", "key": "client_ip", "rate": "2000/s", "match": {"path_prefix": "/a"}}],
        [{"name": "posts", "key": "header:X-User", "rate": "3000/s", "match": {"methods": ["POST"]}, "status": 503}],
    ],
}
_LISTENER: Final[dict[str, list[Any]]] = {
    "limits": [{"headers": 50}, {"connections_per_ip": 100}, {"body_bytes": 4}, {"request_line_bytes": 20}],
    "timeouts": [{"keep_alive": "30s"}, {"request_body": "20s", "write": "9s"}],
    "upgrade": [["websocket"], ["chat"]],
    "path_rules": ["strict", "raw"],
    "encoded_slashes": ["pass"],
    "protocols": [["h1"], ["h1", "h2"]],
    "methods": [["GET"], ["GET", "POST"]],
    "half_close": ["answer"],
    "underscore_headers": ["pass", "reject"],
    "proxy_protocol": ["off", "off", "off", "accept"],
    "deadline_header": ["X-Deadline"],
}
_POOL: Final[dict[str, list[Any]]] = {
    "kind": ["gunicorn-sync", "uvicorn", "waitress"],
    "strategy": [
        "round_robin",
        "random",
        "weighted_round_robin",
        "ip_hash",
        "power_of_two",
        "peak_ewma",
        "first",
        {"name": "consistent_hash", "key": "header:X-User"},
        {"name": "consistent_hash", "key": "client_ip", "bounded_load": 1.5},
    ],
    "dns": [{"interval": "3s"}],
    "max_inflight": [2, 5],
    "queue": [{"size": 7, "timeout": "3s"}, {"order": "fifo"}],
    "health_check": ["off", {"interval": "200ms"}, {"path": "/health", "interval": "200ms"}],
    "circuit_breaker": ["off", {"max_ejected": 0.9}],
    "headers": [{"response": {"set": {"x-pool": "one"}}}, {"response": {"set": {"x-pool": "two"}}}],
    "keep_alive": ["off", {"idle": 3}],
    "retry": ["off", {"attempts": 1, "idempotent": True}],
    "timeouts": [{"read": "33s"}, {"response_head": "44s", "total": "50s"}],
    "fail_open": ["off", 0.3],
    "slow_start": ["1ms"],
    "limits": [{"headers": 90}],
    "lenient": [True],
    "sticky": [
        {"cookie": "lb", "secret": "x" * 40},
        {"cookie": "other", "secret": "y" * 40, "max_age": "1h", "same_site": "strict"},
    ],
}
_ROUTE_EXTRAS: Final[dict[str, list[Any]]] = {
    "timeouts": [{"read": "11s"}, {"total": "12s"}],
    "retry": [{"attempts": 0}, {"idempotent": True}],
    "headers": [{"response": {"set": {"x-route": "r"}}}, {"response": {"add": {"x-route": "s"}}}],
    "upgrade": [["websocket"]],
    "rewrite": [{"path_prefix": "/new"}],
}
_MATCHES: Final[dict[str, Any]] = {
    "host": "a.example",
    "path": "/b",
    "path_prefix": "/a",
    "path_regex": "^/[ab]$",
    "methods": ["POST"],
    "headers": {"X-User": "one"},
    "query": {"x": "1"},
    "json": {"/model": "big*"},
    "api_key": "team-a",
}
TRIED: Final = frozenset(
    {
        *_ROOT,
        "api_keys",
        *(f"listeners.{key}" for key in (*_LISTENER, "name", "mode", "pool", "routes")),
        *(f"pools.{key}" for key in (*_POOL, "servers", "servers_file")),
        *(f"routes.{key}" for key in (*_ROUTE_EXTRAS, "name", "match", "pool", "split", "redirect", "respond")),
        "routes.api_keys",
        *(f"match.{key}" for key in _MATCHES),
    }
)


def keys() -> Iterator[str]:
    """Every key of a config, down to those of listeners, pools, routes and matches."""
    models: tuple[tuple[str, type[BaseModel]], ...] = (
        ("listeners.", Listener),
        ("pools.", Pool),
        ("routes.", Route),
        ("match.", Match),
    )
    yield from (name for name in Model.model_fields if name not in ("listeners", "pools"))
    for where, model in models:
        yield from (where + name for name in model.model_fields)


@dataclass(frozen=True)
class Question:
    """A request. fields: lines of its head."""

    method: str
    path: str
    fields: tuple[str, ...] = ()
    body: str = ""

    @property
    def octets(self) -> bytes:
        host = "" if any(field.startswith("Host:") for field in self.fields) else "Host: h\r\n"
        lines = "".join(f"{field}\r\n" for field in self.fields)
        head = f"{self.method} {self.path} HTTP/1.1\r\n{host}{lines}Content-Length: {len(self.body)}\r\n\r\n"
        return (head + self.body).encode()


QUESTIONS: Final = (
    *(Question(method, path) for method in ("GET", "POST") for path in ("/", "/a", "/a/b", "/b?x=1", "/a%2Fb")),
    Question("GET", "/a", ("X-User: one",)),
    Question("GET", "/a", ("X-User: two", "X_Under: score")),
    Question("GET", "/b", ("Host: a.example", "X-API-Key: " + KEYS["team-a"])),
    Question("GET", "/", ("X-API-Key: " + KEYS["team-b"],)),
    Question("GET", "/", ("X-API-Key: nobody's",)),
    Question("POST", "/a", ("Content-Type: application/json",), '{"model": "big-1"}'),
    Question("POST", "/", ("Content-Type: application/json", "X-User: one"), '{"model": "small"}'),
)


class Maker:
    """addresses: of servers, at least three. folder: for files that a config names."""

    def __init__(self, rng: random.Random, addresses: Sequence[str], folder: Path) -> None:
        self._rng = rng
        self._addresses = addresses
        self._keys = folder / "keys.txt"
        self._servers = folder / "servers.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self._keys.write_text("".join(f"{name} {hash_of(key)}\n" for name, key in KEYS.items()))
        self._servers.write_text(f"[{{address: '{addresses[0]}', name: from-file}}]\n")

    def make(self) -> Config:
        rng = self._rng
        pools = {name: self._pool() for name in rng.sample(["p", "q", "r"], rng.randint(1, 3))}
        made: Config = self._some(_ROOT, 0.3)
        has_keys = rng.random() < 0.4
        if has_keys:
            made["api_keys"] = {"file": str(self._keys), "required": rng.random() < 0.5}
        names = rng.sample(["in", "out"], rng.randint(1, 2))
        made["listeners"] = [self._listener(name, list(pools), has_keys=has_keys) for name in names]
        if any({"proxy_protocol", "deadline_header"} & listener.keys() for listener in made["listeners"]):
            made.setdefault("trusted_proxies", ["10.0.0.0/8"])  # or nobody could send them
        if rng.random() < 0.3:  # what is of HTTP only is not for its pool
            made["listeners"].append({"name": "tcp", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "t"})
            pools["t"] = {"servers": rng.sample(self._addresses, 2), "strategy": rng.choice(["first", "round_robin"])}
        return {**made, "pools": pools}

    def _some(self, choices: dict[str, list[Any]], chance: float) -> Config:
        return {key: self._rng.choice(values) for key, values in choices.items() if self._rng.random() < chance}

    def _listener(self, name: str, pools: list[str], *, has_keys: bool) -> Config:
        rng = self._rng
        made: Config = {"name": name, "bind": "127.0.0.1:0", **self._some(_LISTENER, 0.25)}
        if rng.random() < 0.2:
            made["pool"] = rng.choice(pools)
            return made
        routes: list[Config] = []
        for key in rng.sample(list(_MATCHES), rng.randint(0, 4)):
            if key == "api_key" and not has_keys:
                continue
            match = {key: _MATCHES[key]}
            if rng.random() < 0.2 and key != "path":
                match["path"] = _MATCHES["path"]
            routes.append({"match": match, **self._action(pools)})
            if has_keys and rng.random() < 0.3:
                routes[-1]["api_keys"] = rng.choice(["off", "optional", ["team-a"]])
            if rng.random() < 0.3:
                routes[-1]["name"] = f"{name}-{key}"
        made["routes"] = [*routes, {"pool": rng.choice(pools)}]
        return made

    def _action(self, pools: list[str]) -> Config:
        rng = self._rng
        match rng.choice(["pool", "pool", "split", "respond", "redirect"]):
            case "split" if len(pools) > 1:
                shares = {name: rng.randint(1, 9) for name in pools}
                return {"split": {"by": rng.choice(["client_ip", "header:Host"]), "pools": shares}}
            case "respond":
                return {"respond": {"status": rng.choice([200, 418]), "body": "b"}}
            case "redirect":
                return {"redirect": {"location": "/elsewhere", "status": rng.choice([302, 308])}}
            case _:
                return {"pool": rng.choice(pools), **self._some(_ROUTE_EXTRAS, 0.2)}

    def _pool(self) -> Config:
        rng = self._rng
        servers: list[Config] = []
        for address in rng.sample(self._addresses[1:], rng.randint(1, len(self._addresses) - 1)):
            server: Config = {"address": address}
            if rng.random() < 0.5:
                server["weight"] = rng.randint(1, 5)
            if rng.random() < 0.3:
                server["max_inflight"] = rng.randint(1, 9)
            if servers and rng.random() < 0.2:
                server["backup"] = True
            servers.append(server)
        made: Config = {"servers": servers, **self._some(_POOL, 0.3)}
        if rng.random() < 0.2:
            made["servers_file"] = str(self._servers)
        return made
