"""Whatever the old file and the new one: after a reload lbproxy is as one that was started with the new one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.scenarios.process.test_reload import Reloads
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.waiting import wait_until

Config = dict[str, Any]
PATHS = ("/", "/a", "/a/b", "/b?x=1")
RELOADS = 6


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with Origin() as one, Origin() as two, Origin() as three:
        yield [one.address, two.address, three.address]


def random_config(rng: random.Random, addresses: list[str]) -> Config:
    pools = {name: random_pool(rng, addresses) for name in rng.sample(["p", "q", "r"], rng.randint(1, 3))}
    listeners = [random_listener(rng, name, list(pools)) for name in rng.sample(["in", "out"], rng.randint(1, 2))]
    return {"listeners": listeners, "pools": pools}


def random_listener(rng: random.Random, name: str, pools: list[str]) -> Config:
    routes: list[Config] = [
        {"match": {"path_prefix": "/a"}, "pool": rng.choice(pools)},
        {"match": {"path": "/b"}, "respond": {"status": rng.choice([200, 418]), "body": "b"}},
        {"match": {"path": "/a/b"}, "redirect": {"location": "/elsewhere", "status": 302}},
    ]
    made: Config = {
        "name": name,
        "bind": "127.0.0.1:0",
        "routes": [*rng.sample(routes, rng.randint(0, 3)), {"pool": rng.choice(pools)}],
    }
    choices: dict[str, list[Any]] = {
        "limits": [{"headers": 50}, {"connections_per_ip": 100}],
        "methods": [["GET"]],
        "path_rules": ["strict"],
        "half_close": ["answer"],
    }
    for key, values in choices.items():
        if rng.random() < 0.3:
            made[key] = rng.choice(values)
    return made


def random_pool(rng: random.Random, addresses: list[str]) -> Config:
    servers: list[Config] = []
    for address in rng.sample(addresses, rng.randint(1, 3)):
        server: Config = {"address": address}
        if rng.random() < 0.5:
            server["weight"] = rng.randint(1, 5)
        if rng.random() < 0.3:
            server["max_inflight"] = rng.randint(1, 9)
        if servers and rng.random() < 0.2:
            server["backup"] = True
        servers.append(server)
    made: Config = {"servers": servers}
    choices: dict[str, list[Any]] = {
        "strategy": ["round_robin", "random", "weighted_round_robin", "ip_hash", "power_of_two", "peak_ewma"],
        "max_inflight": [2, 5],
        "queue": [{"size": 7, "timeout": "3s"}, {"order": "fifo"}],
        "health_check": ["off", {"interval": "200ms"}],
        "circuit_breaker": ["off", {"max_ejected": 0.9}],
        "headers": [{"response": {"set": {"x-pool": "one"}}}, {"response": {"set": {"x-pool": "two"}}}],
        "keep_alive": ["off"],
        "retry": ["off"],
    }
    for key, values in choices.items():
        if rng.random() < 0.4:
            made[key] = rng.choice(values)
    return made


def seen(lb: LbProxy) -> Config:
    """What the status says of what the file decides."""
    status: Any = lb.status()
    return {
        "listeners": sorted((item["name"], item["mode"]) for item in status["listeners"]),
        "pools": {
            pool["name"]: {
                "strategy": pool["strategy"],
                "queue": (pool["queue"]["size"], pool["queue"]["timeout"]),
                "max_ejected": pool["max_ejected"],
                "servers": {
                    server["name"]: {
                        key: server[key] for key in ("address", "weight", "max_inflight", "backup", "admin", "state")
                    }
                    for server in pool["servers"]
                },
            }
            for pool in status["pools"]
        },
    }


def answers(lb: LbProxy) -> dict[tuple[str, str, str], object]:
    """What clients get: status, and what the rules of listeners and pools add."""
    found: dict[tuple[str, str, str], object] = {}
    status: Any = lb.status()
    for listener in status["listeners"]:
        port = int(listener["bind"][0].rpartition(":")[2])
        for method in ("GET", "POST"):
            for path in PATHS:
                with Client(port) as client:
                    answer = client.ask(f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
                found[listener["name"], method, path] = (
                    answer.status,
                    answer.get("x-pool"),
                    answer.get("location"),
                    answer.get("allow"),
                )
    return found


def explained(lb: LbProxy) -> dict[tuple[str, str, str], Config]:
    """What `lbproxy explain` says would come of each of them, but for whose turn it is and what time brings."""
    found: dict[tuple[str, str, str], Config] = {}
    status: Any = lb.status()
    for listener in status["listeners"]:
        for method in ("GET", "POST"):
            for path in PATHS:
                asked = urlencode({"listener": listener["name"], "method": method, "path": path})
                code, body = lb.admin_get(f"/api/v1/explain?{asked}")
                assert code == 200, body
                told: Config = json.loads(body)
                pool = told.pop("pool")
                del told["pick"]
                if pool is not None:
                    told["pool"] = {key: pool[key] for key in ("name", "strategy", "usable", "failing_open")}
                    told["servers"] = {
                        server["name"]: {
                            key: server[key] for key in ("may_take", "last", "state", "max_inflight", "weight")
                        }
                        for server in pool["servers"]
                    }
                found[listener["name"], method, path] = told
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_reload_comes_to_what_a_start_does(seed: int, addresses: list[str], tmp_path: Path) -> None:
    rng = random.Random(seed)
    with LbProxy(random_config(rng, addresses), tmp_path / "reloaded") as lb:
        reloads = Reloads(lb)
        kept = {key: reloads.config[key] for key in ("admin", "access_log")}
        for number in range(RELOADS):
            config = random_config(rng, addresses)
            reloads.config = {**kept, **config}
            reloads.reload()
            with LbProxy(config, tmp_path / f"fresh-{number}") as fresh:
                wanted = wait_until(lambda fresh=fresh: all_up(fresh) and seen(fresh), "the fresh one is ready")  # type: ignore[misc]
                wait_until(lambda wanted=wanted: seen(lb) == wanted, f"the same after reload {number}: {wanted}")  # type: ignore[misc]
                assert explained(lb) == explained(fresh)
                assert answers(lb) == answers(fresh)
        lb.baseline_fds += 2  # listeners may be more than at the start


def all_up(lb: LbProxy) -> bool:
    status: Any = lb.status()
    return all(server["state"] == "up" for pool in status["pools"] for server in pool["servers"])
