"""Rendered configurations: the features that make the comparison fair are on in each of them."""

from pathlib import Path

import pytest

from benchmarks.load.cases import Mode
from benchmarks.load.configs import TEMP_PATH_MODULES, render_backend, render_haproxy, render_lbproxy, render_nginx
from lbproxy.config.loader import load_text

SERVERS = (9001, 9002)
MODES: tuple[Mode, ...] = ("http", "tcp")
HERE = Path("/somewhere")


def nginx(mode: Mode, *, module: Path | None = None, tuned: bool = False) -> str:
    return render_nginx(mode, 9000, SERVERS, HERE, TEMP_PATH_MODULES, module, tuned=tuned)


@pytest.mark.parametrize("mode", MODES)
def test_lbproxy_accepts_its_config_without_a_warning(mode: Mode) -> None:
    loaded = load_text(render_lbproxy(mode, 9000, 9009, SERVERS), "bench.yaml", {})
    assert loaded.warnings == ()
    (listener,) = loaded.config.listeners
    pool = loaded.config.pools["servers"]
    assert (listener.mode, str(listener.bind[0])) == (mode, "127.0.0.1:9000")
    assert [server.address.port for server in pool.servers] == [9001, 9002]
    assert pool.health_check is not None
    assert (pool.health_check.interval, pool.strategy.name) == (2.0, "least_connections")
    assert loaded.config.access_log is not None
    assert (loaded.config.access_log.path, loaded.config.access_log.format) == ("/dev/null", "json")


@pytest.mark.parametrize("mode", MODES)
def test_haproxy_does_the_same_work(mode: Mode) -> None:
    lines = [line.strip() for line in render_haproxy(mode, 9000, SERVERS).splitlines()]
    assert {f"mode {mode}", "balance leastconn", "log global", "nbthread 1", "bind 127.0.0.1:9000"} <= set(lines)
    assert {f"server s{port} 127.0.0.1:{port} check inter 2s" for port in SERVERS} <= set(lines)
    assert ("option forwardfor" in lines) == (mode == "http")
    assert ("option tcplog" in lines) == (mode == "tcp")


@pytest.mark.parametrize("mode", MODES)
def test_nginx_does_the_same_work(mode: Mode) -> None:
    text = nginx(mode)
    assert {"least_conn;", "worker_processes 1;", "listen 127.0.0.1:9000;"} <= {
        line.strip() for line in text.splitlines()
    }
    assert "access_log /dev/null" in text
    assert ("X-Forwarded-For" in text) == (mode == "http")
    assert text.count("{") == text.count("}")


def test_buffers_are_touched_in_the_tuned_forms_only() -> None:
    for mode in MODES:
        assert "proxy_buffer_size" not in nginx(mode)
        assert "proxy_buffer_size" in nginx(mode, tuned=True)
        assert "tune.bufsize" not in render_haproxy(mode, 9000, SERVERS)
        assert "tune.bufsize" in render_haproxy(mode, 9000, SERVERS, tuned=True)


def test_the_stream_module_is_loaded_only_if_it_is_a_file_of_its_own() -> None:
    assert "load_module /modules/stream.so;" in nginx("tcp", module=Path("/modules/stream.so"))
    assert "load_module" not in nginx("tcp")


def test_temporary_files_of_nginx_stay_in_its_directory() -> None:
    text = render_backend([9001], HERE, ["proxy"])
    assert "client_body_temp_path /somewhere/client_body;" in text
    assert "proxy_temp_path /somewhere/proxy;" in text
    assert "scgi_temp_path" not in text


def test_the_backend_listens_on_every_port() -> None:
    text = render_backend([9001, 9002, 9003], HERE, [])
    assert [f"listen 127.0.0.1:{port};" in text for port in (9001, 9002, 9003)] == [True] * 3


def test_lbproxy_with_everything_on_and_with_everything_off() -> None:
    pools = {}
    for extras in ("full", "bare"):
        loaded = load_text(render_lbproxy("http", 9000, 9009, SERVERS, extras), "bench.yaml", {})
        assert loaded.warnings == ()
        pools[extras] = loaded.config.pools["servers"]
    full, bare = pools["full"], pools["bare"]
    assert (full.max_inflight, bare.max_inflight) == (64, None)
    assert full.circuit_breaker is not None and bare.circuit_breaker is None
    assert (full.retry.attempts, bare.retry.attempts) == (2, 0)
    assert full.retry.status and full.timeouts.total and full.slow_start


def test_more_connections_than_usual_fit_if_asked_for() -> None:
    assert "maxconn 4096\n" in render_haproxy("http", 9000, SERVERS)
    assert "worker_connections 4096;" in nginx("http")
    assert "maxconn 6000\n" in render_haproxy("http", 9000, SERVERS, clients=6000)
    # nginx counts those to servers too.
    for mode in MODES:
        text = render_nginx(mode, 9000, SERVERS, HERE, TEMP_PATH_MODULES, None, clients=6000)
        assert "worker_connections 12000;" in text
