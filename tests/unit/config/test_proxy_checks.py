"""What is accepted; what is refused, and in which words, stands in refused.txt."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text

POOLS = "pools: {p: {servers: ['a:1'], POOL}}\n"


def warnings(listener: str, pool: str = "", trusted: str = "[]") -> list[str]:
    text = f"trusted_proxies: {trusted}\nlisteners: [{{pool: p, {listener}}}]\n" + POOLS.replace("POOL", pool)
    return [str(problem) for problem in load_text(text, "lb.yaml", {}).warnings]


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_headers_are_accepted_from_networks_and_through_the_file_of_a_unix_socket(mode: str) -> None:
    accept = f"mode: {mode}, proxy_protocol: accept"
    assert warnings(f"bind: ':1', {accept}", trusted="[10.0.0.0/8]") == []
    assert warnings(f"bind: 'unix:/run/front.sock', {accept}") == []
    assert warnings(f"bind: [':1', 'unix:/run/front.sock'], {accept}", trusted="['fd00::/8']") == []


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_headers_are_sent_on_connections_of_one_client(version: str) -> None:
    assert warnings("bind: ':1', mode: tcp", f"proxy_protocol: {version}") == []
    assert warnings("bind: ':1'", f"proxy_protocol: {version}, keep_alive: off") == []
