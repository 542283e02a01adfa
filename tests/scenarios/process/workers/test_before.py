"""The lbproxy before goes while another one of two workers takes over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.scenarios.process.workers.test_heir import serves
from tests.support.client import Client
from tests.support.crew import GET, crew_config, members_of
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import READY_S, Chain, wait_ended
from tests.support.waiting import wait_until


@pytest.mark.parametrize("at", ["hello", "ready", "serving"])
def test_the_old_lbproxy_is_killed_at_any_point(tmp_path: Path, at: str) -> None:
    """With the sockets in its hands the new one loses nobody; before that it starts as any other."""
    first = consecutive_ports(2)
    with Origin() as origin:
        config = crew_config(origin)
        config["listeners"][0]["bind"] = f"127.0.0.1:{first}"
        config["admin"] = {"bind": f"127.0.0.1:{first + 1}"}
        with Chain(config, tmp_path) as lb:
            lb.may_complain = True  # its workers say that their supervisor is gone
            with lb.holding(at) as new:
                lb.kill_first()
            wait_until(lambda: lb.stderr.count("listening name=in") == 2, "the new one to serve", READY_S)
            assert serves(first)
            wait_until(lambda: lb.admin_get("/readyz")[0] == 200, "the new one to be ready")
            assert sorted(members_of(new)) == ["1", "2", "c"]
            os.kill(new, signal.SIGTERM)
            wait_ended(new)


def test_whoever_stops_the_new_lbproxy_stops_what_is_left_of_the_old_one(tmp_path: Path) -> None:
    with Origin() as origin, Chain(crew_config(origin), tmp_path) as lb:
        with Client(lb.port("in")) as client:
            assert client.ask(GET).status == 200
            lb.upgrade()
            assert sorted(members_of(lb.pid))[:1] in (["1"], ["2"]), "whoever has the connection stays"
            os.kill(lb.current, signal.SIGTERM)
            for pid in (lb.current, lb.pid):
                wait_ended(pid)
        assert lb.exit_code == 0
        assert f"the process {lb.current} stops, and so does this one" in lb.stderr
