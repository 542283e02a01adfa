"""What servers and proxies are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.h2 import configs
from benchmarks.h2.cases import Server

STAT = """\
# pxname,svname,scur,req_tot,mode
o0,FRONTEND,1,10,http
o1,FRONTEND,1,12,http
servers,BACKEND,1,5,http
"""


@pytest.mark.parametrize("server", ["h1", "h2"])
@pytest.mark.parametrize("pem", [None, Path("/tmp/bench.pem")])
def test_lbproxy_is_told_what_its_servers_speak(server: Server, pem: Path | None) -> None:
    text = configs.render_lbproxy(5000, 5001, [6000, 6001], server, pem)
    written = yaml.safe_load(text)
    assert written["pools"]["servers"]["protocol"] == server
    assert ("tls" in written["listeners"][0]) == (pem is not None)


def test_haproxy_speaks_http2_where_lbproxy_does() -> None:
    plain = configs.render_haproxy(5000, [6000], "h2", None)
    assert "bind 127.0.0.1:5000 proto h2" in plain and "server s6000 127.0.0.1:6000 check inter 2s proto h2" in plain
    secure = configs.render_haproxy(5000, [6000], "h1", Path("/tmp/bench.pem"))
    assert "alpn h2,http/1.1" in secure and "server s6000 127.0.0.1:6000 check inter 2s\n" in secure


def test_servers_are_counted_one_by_one() -> None:
    text = configs.render_servers([6000, 6001], "h2", Path("/tmp/stats"))
    assert "frontend o0\n    bind 127.0.0.1:6000 proto h2" in text and "frontend o1" in text
    assert configs.parse_counts(STAT) == {"o0": 10, "o1": 12}
