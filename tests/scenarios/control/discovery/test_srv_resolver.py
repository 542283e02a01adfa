"""Questions over real sockets, to a server that answers, fails, is silent and cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.resolver
import pytest

from lbproxy.address import parse_address
from lbproxy.control.discovery import srv_resolver
from lbproxy.control.discovery.srv import NoSuchName, Record
from lbproxy.control.discovery.srv_resolver import DnsPython
from tests.support.dns_server import SILENCE, DnsServer

NAME = "_p._tcp.example.org"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as made:
        yield made


@pytest.fixture
def resolver(server: DnsServer) -> DnsPython:
    return DnsPython([parse_address(server.address)])


async def test_records_and_addresses(server: DnsServer, resolver: DnsPython) -> None:
    server.set_srv(NAME, (10, 5, 5001, "A.example.org"), (20, 0, 5002, "b.example.org"))
    records = await resolver.srv(NAME)
    assert set(records) == {Record(10, 5, 5001, "a.example.org"), Record(20, 0, 5002, "b.example.org")}
    server.set("a.example.org", "A", "127.0.0.10", "127.0.0.9")
    server.set("a.example.org", "AAAA", "fd00::1")
    assert await resolver.addresses("a.example.org") == ["127.0.0.9", "127.0.0.10", "fd00::1"]
    server.set("six.example.org", "AAAA", "fd00::1")
    assert await resolver.addresses("six.example.org") == ["fd00::1"]


async def test_a_dot_for_a_target(server: DnsServer, resolver: DnsPython) -> None:
    server.set(NAME, "SRV", "0 0 0 .")
    assert await resolver.srv(NAME) == [Record(0, 0, 0, "")]


async def test_what_is_not_there(server: DnsServer, resolver: DnsPython) -> None:
    with pytest.raises(NoSuchName, match="there is no such name"):
        await resolver.srv(NAME)
    with pytest.raises(NoSuchName, match="there is no such name"):
        await resolver.addresses("a.example.org")
    server.set(NAME, "A", "127.0.0.1")
    with pytest.raises(NoSuchName, match="the name has no SRV record"):
        await resolver.srv(NAME)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_resolver_that_fails_is_named(server: DnsServer, resolver: DnsPython, rcode: str) -> None:
    server.set_mood(NAME, rcode)
    with pytest.raises(OSError, match=rf"the resolver Do53:127\.0\.0\.1@{server.port} said {rcode}"):
        await resolver.srv(NAME)


async def test_half_of_the_addresses_is_no_answer(server: DnsServer, resolver: DnsPython) -> None:
    """Else a server would come and go with a resolver that fails for one kind."""
    server.set("a.example.org", "A", "127.0.0.1")
    server.set_mood("a.example.org", "SERVFAIL")
    with pytest.raises(OSError, match="SERVFAIL"):
        await resolver.addresses("a.example.org")


async def test_silence_ends(server: DnsServer, resolver: DnsPython, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srv_resolver, "ONE_S", 0.1)
    monkeypatch.setattr(srv_resolver, "ALL_S", 0.3)
    server.set_mood(NAME, SILENCE)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.3 s"):
        await resolver.srv(NAME)


async def test_a_long_answer_comes_over_tcp(server: DnsServer, resolver: DnsPython) -> None:
    server.set_srv(NAME, *((0, 1, 80, f"host-{number}.example.org") for number in range(100)))
    assert len(await resolver.srv(NAME)) == 100
    assert server.n_tcp == 1


async def test_the_next_resolver_is_asked(server: DnsServer) -> None:
    server.set_srv(NAME, (0, 1, 80, "a.example.org"))
    with DnsServer() as failing:
        failing.set_mood(NAME, "SERVFAIL")
        both = DnsPython([parse_address(failing.address), parse_address(server.address)])
        assert len(await both.srv(NAME)) == 1


async def test_resolv_conf_is_read_for_each_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And its search list counts."""
    conf = tmp_path / "resolv.conf"
    real = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", lambda self, name: real(self, str(conf)))
    asked: list[tuple[list[str], list[str]]] = []

    async def resolve(self: dns.resolver.BaseResolver, name: str, kind: str, *, search: bool) -> list[object]:
        names = self._get_qnames_to_try(dns.name.from_text(name, None), search)
        asked.append(([str(server) for server in self.nameservers], [item.to_text() for item in names]))
        return []

    monkeypatch.setattr("dns.asyncresolver.Resolver.resolve", resolve)
    for number in (1, 2):
        conf.write_text(f"nameserver 127.0.0.{number}\nsearch one.test two.test\noptions ndots:3\n")
        await DnsPython().srv("_p._tcp")
    names = ["_p._tcp.one.test.", "_p._tcp.two.test.", "_p._tcp."]
    assert asked == [(["127.0.0.1"], names), (["127.0.0.2"], names)]
    conf.unlink()
    with pytest.raises(OSError, match=r"cannot open .*resolv\.conf"):
        await DnsPython().srv("_p._tcp")
