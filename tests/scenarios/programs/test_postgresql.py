"""psql against PostgreSQL through TCP mode; both sides over unix sockets, and the client over TCP too."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import Postgres
from tests.support.servers import needed
from tests.support.waiting import wait_until

PORT = 6432  # of the unix socket's name only


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, LbProxy]]:
    folder = tmp_path_factory.mktemp("pg")
    postgres = Postgres()
    try:
        postgres.start(2)
        config: dict[str, object] = {
            "listeners": [
                {"name": "tcp", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "sql"},
                {"name": "unix", "bind": f"unix:{postgres.folder}/.s.PGSQL.{PORT}", "mode": "tcp", "pool": "sql"},
                {"name": "one", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "one"},
            ],
            "pools": {
                "sql": {
                    "servers": [f"unix:{postgres.path(number)}" for number in range(2)],
                    "strategy": "round_robin",
                    "health_check": {"type": "tcp", "interval": "250ms"},
                },
                "one": {"servers": [f"unix:{postgres.path(0)}"], "health_check": "off"},
            },
        }
        with LbProxy(config, folder) as lb:
            yield postgres, lb
    finally:
        postgres.close()


def psql(site: tuple[Postgres, LbProxy], listener: str, *arguments: str, text: str = "") -> str:
    postgres, lb = site
    where = ["-h", str(postgres.folder), "-p", str(PORT)]
    if listener != "unix":
        where = ["-h", "127.0.0.1", "-p", str(lb.port(listener))]
    command = [
        needed("psql"),
        *where,
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "tester",
        "-d",
        "postgres",
    ]
    done = subprocess.run(
        [*command, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PGCONNECT_TIMEOUT": "60", "PGSSLMODE": "disable"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("listener", ["tcp", "unix"])
def test_queries_and_their_results(site: tuple[Postgres, LbProxy], listener: str) -> None:
    script = "select sum(x) from generate_series(1, 100000) x;\nselect 'grüße', 1/3.0;\n"
    assert psql(site, listener, text=script) == "5000050000\ngrüße|0.33333333333333333333\n"


def test_both_servers_are_used(site: tuple[Postgres, LbProxy]) -> None:
    folders = {psql(site, "tcp", "-c", "show unix_socket_directories") for _ in range(4)}
    assert len(folders) == 2


@pytest.mark.parametrize("listener", ["tcp", "unix"])
def test_megabytes_out_and_in_are_exact(site: tuple[Postgres, LbProxy], listener: str) -> None:
    query = "select x, md5(x::text), repeat('y', 100) from generate_series(1, 50000) x"
    out = psql(site, listener, "-c", f"copy ({query}) to stdout")
    lines = [f"{number}\t{hashlib.md5(str(number).encode()).hexdigest()}\t{'y' * 100}\n" for number in range(1, 50_001)]
    assert out == "".join(lines)
    script = "create temp table t (x int, h text, y text);\ncopy t from stdin;\n" + out + "\\.\n"
    script += "select count(*), sum(x), count(*) filter (where h = md5(x::text)) from t;\n"
    assert psql(site, listener, text=script) == "50000|1250025000|50000\n"


def test_a_session_keeps_its_state(site: tuple[Postgres, LbProxy]) -> None:
    script = "begin;\ncreate table kept (x int);\ninsert into kept values (1), (2);\n"
    script += "select count(*) from kept;\nselect pg_sleep(0.3);\nrollback;\n"
    assert psql(site, "one", text=script) == "2\n\n"
    assert psql(site, "one", "-c", "select count(*) from pg_class where relname = 'kept'") == "0\n"


def test_one_of_two_is_killed(site: tuple[Postgres, LbProxy]) -> None:
    """Last in this file: the server stays away. Its unix socket's file is left behind, and refuses."""
    postgres, lb = site
    postgres.servers[1].kill()
    for _ in range(6):
        assert psql(site, "tcp", "-c", "select 1") == "1\n"
    wait_until(lambda: lb.metric("server_up", pool="sql") == 1, "the other to be down")
    assert lb.metric("client_aborts_total", pool="sql") == 0
