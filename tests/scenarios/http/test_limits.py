"""API keys and rate limits of a running lbproxy: files that change, reloads, several workers."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

from lbproxy.api_keys import hash_of, new_key
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.rig import get
from tests.support.waiting import wait_until

SELF = [{"respond": {"body": "x"}}]


def settings(**keys: object) -> dict[str, object]:
    return {"listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": SELF}], **keys}


def test_keys_that_come_and_go_on_a_connection_that_stays(tmp_path: Path) -> None:
    path, key = tmp_path / "keys.txt", new_key()
    path.write_text("# nobody yet\n")
    with LbProxy(settings(api_keys={"file": str(path)}), tmp_path / "lb") as lb, Client(lb.port("in")) as client:
        request = get("/", f"X-API-Key: {key}")
        assert [client.ask(request).status for _ in range(3)] == [401, 401, 401]
        path.write_text(f"team-a {hash_of(key)}\n")
        wait_until(lambda: client.ask(request).status == 200, "the key to be known")
        lb.wait_logged("api_keys: API keys changed and are in use")
        assert client.ask(get("/named", f"X-API-Key: {key}")).status == 200
        assert lb.entry("/named")["key"] == "team-a"
        path.write_text("team-a nonsense\n")
        lb.wait_logged("api_keys: its new API keys are not used, the old ones stay")
        assert client.ask(request).status == 200
        assert key not in lb.stderr and key not in lb.access_log_path.read_text()


def test_a_limit_is_exact_over_workers_and_a_reload(tmp_path: Path) -> None:
    config = settings(workers=2, rate_limits=[{"name": "n", "key": "all", "rate": "1/h", "burst": 40}])
    with LbProxy(config, tmp_path) as lb:
        found: Counter[int] = Counter()
        lock = threading.Lock()

        def ask(count: int) -> None:
            for _ in range(count):
                with Client(lb.port("in")) as client:  # each may meet another worker
                    status = client.ask(get("/")).status
                with lock:
                    found[status] += 1

        threads = [threading.Thread(target=ask, args=(15,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {200: 40, 429: 20}
        lb.wait_metric("rate_limited_total", 20, rule="n")
        lb.config_path.write_text(lb.config_path.read_text().replace("burst: 40", "burst: 41"))
        lb.signal(signal.SIGHUP)
        lb.wait_metric("config_reloads_total", 1, result="success")
        ask(3)
        assert found == {200: 41, 429: 22}, "what was used is not given anew"
