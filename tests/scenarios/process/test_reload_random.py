"""Whatever the old file and the new one: after a reload lbproxy is as one that was started with the new one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from lbproxy.config.loader import load_text
from tests.scenarios.process.test_reload import Reloads
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.random_configs import LEFT_OUT, QUESTIONS, TRIED, Maker, Question, keys
from tests.support.waiting import wait_until
from tests.support.wire import Ended

Config = dict[str, Any]
RELOADS = 6
SEEDS = int(os.environ.get("LBPROXY_RELOAD_SEEDS", "3"))  # `make soak` tries more
SERVER = ("may_take", "last", "state", "max_inflight", "weight")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113 section 3.4
TOLD = ("x-pool", "x-route", "location", "allow", "ratelimit-policy", "www-authenticate")


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with Origin() as one, Origin() as two, Origin() as three, Origin() as four:
        yield [one.address, two.address, three.address, four.address]


def test_every_key_is_tried_or_left_out_for_a_reason() -> None:
    assert set(keys()) == TRIED | LEFT_OUT.keys()
    assert not TRIED & LEFT_OUT.keys()


def test_every_key_that_is_tried_comes(tmp_path: Path) -> None:
    """And whatever comes is a config."""
    came: set[str] = set()
    maker = Maker(random.Random(1), [f"127.0.0.1:{port}" for port in range(5001, 5005)], tmp_path)
    for _ in range(200):
        config = maker.make()
        load_text(yaml.safe_dump(config), str(tmp_path / "lb.yaml"), {})
        came.update(key for key in config if key not in ("listeners", "pools"))
        for listener in config["listeners"]:
            came.update(f"listeners.{key}" for key in listener)
            for route in listener.get("routes", ()):
                came.update(f"routes.{key}" for key in route)
                came.update(f"match.{key}" for key in route.get("match", ()))
        for pool in config["pools"].values():
            came.update(f"pools.{key}" for key in pool)
    assert came - {"listeners.bind"} == TRIED


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


def answers(lb: LbProxy) -> dict[tuple[str, Question], object]:
    """What clients get: status, and what the rules of listeners, routes and pools add."""
    found: dict[tuple[str, Question], object] = {}
    status: Any = lb.status()
    for listener in status["listeners"]:
        port = int(listener["bind"][0].rpartition(":")[2])
        for question in QUESTIONS:
            with Client(port) as client:
                try:
                    answer = client.ask(question.octets)
                except Ended:  # as whoever may not send a PROXY header to a listener that wants one
                    found[listener["name"], question] = "closed"
                    continue
            cookie, _, rest = (answer.get("set-cookie") or "").partition("=")
            told = tuple(answer.get(name) for name in TOLD)
            found[listener["name"], question] = (answer.status, told, cookie, rest.partition(";")[2])
    return found


def differences(here: Any, there: Any, path: tuple[object, ...] = ()) -> list[object]:
    """Where they differ, and what stands there."""
    if isinstance(here, dict) and isinstance(there, dict) and here.keys() == there.keys():
        return [item for key in here for item in differences(here[key], there[key], (*path, key))]
    return [] if here == there else [(*path, here, there)]


def speak_http2(lb: LbProxy) -> dict[str, bool]:
    """Which listeners take a client's preface: they send SETTINGS."""
    found: dict[str, bool] = {}
    status: Any = lb.status()
    for listener in status["listeners"]:
        if listener["mode"] == "tcp":
            continue
        with Client(int(listener["bind"][0].rpartition(":")[2])) as client:
            client.send(PREFACE)
            try:
                found[listener["name"]] = client.take(4)[3:] == b"\x04"
            except Ended:
                found[listener["name"]] = False
    return found


def explained(lb: LbProxy) -> dict[tuple[str, Question], Config]:
    """What `lbproxy explain` says would come of each of them, but for whose turn it is and what time brings."""
    found: dict[tuple[str, Question], Config] = {}
    status: Any = lb.status()
    for listener in status["listeners"]:
        if listener["mode"] == "tcp":
            continue
        for question in QUESTIONS:
            asked = [("listener", listener["name"]), ("method", question.method), ("path", question.path)]
            asked += [("header", field) for field in question.fields]
            asked += [("body", question.body)] if question.body else []
            code, body = lb.admin_get(f"/api/v1/explain?{urlencode(asked)}")
            assert code == 200, body
            told: Config = json.loads(body)
            pool = told.pop("pool")
            del told["pick"]
            told.pop("rate_limits", None)
            if pool is not None:
                told["pool"] = {key: pool[key] for key in ("name", "strategy", "usable", "failing_open")}
                told["servers"] = {
                    server["name"]: {
                        key: server[key] for key in ("may_take", "last", "state", "max_inflight", "weight")
                    }
                    for server in pool["servers"]
                }
            found[listener["name"], question] = told
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_reload_comes_to_what_a_start_does(seed: int, addresses: list[str], tmp_path: Path) -> None:
    maker = Maker(random.Random(seed), addresses, tmp_path / "files")
    with LbProxy(maker.make(), tmp_path / "reloaded") as lb:
        reloads = Reloads(lb)
        kept = {key: reloads.config[key] for key in ("admin", "access_log")}
        for number in range(RELOADS):
            config = maker.make()
            reloads.config = {**kept, **config}
            reloads.reload()
            with LbProxy(config, tmp_path / f"fresh-{number}") as fresh:
                wanted = wait_until(lambda fresh=fresh: all_up(fresh) and seen(fresh), "the fresh one is ready")  # type: ignore[misc]
                wait_until(lambda wanted=wanted: seen(lb) == wanted, f"the same after reload {number}: {wanted}")  # type: ignore[misc]
                assert differences(explained(lb), explained(fresh)) == []
                assert differences(answers(lb), answers(fresh)) == []
                assert speak_http2(lb) == speak_http2(fresh)
        lb.baseline_fds += 3  # listeners may be more than at the start


def all_up(lb: LbProxy) -> bool:
    status: Any = lb.status()
    return all(server["state"] == "up" for pool in status["pools"] for server in pool["servers"])
