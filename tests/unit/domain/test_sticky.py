"""Cookies that name a server to who has the secret, and nothing to anybody else."""

from __future__ import annotations

import random
import re
from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.sticky import MOST_COOKIES, SKEW_S, Sticky, StickySettings
from lbproxy.domain.strategies import create
from tests.unit.domain.strategies.helpers import make_servers

NOW = 1_700_000_000.0
SECRET = b"0123456789abcdef"


def pool_of(servers: tuple[Server, ...], name: str = "p") -> Pool:
    chance = random.Random(1)
    return Pool(name, servers, create("round_robin", {}, chance), create("least_connections", {}, chance))


def sticky(pool: Pool | None = None, **settings: object) -> Sticky:
    own = {"cookie": "lb", "secret": SECRET, **settings}
    return Sticky(pool or pool_of(make_servers([1, 1, 1])), StickySettings(**own))  # type: ignore[arg-type]


def value_of(line: bytes) -> str:
    found = re.fullmatch(rb"Set-Cookie: lb=([^;]*); .*\r\n", line)
    assert found is not None, line
    return found[1].decode()


def made(cookies: Sticky, server: Server, at: float = NOW) -> str:
    return value_of(cookies.line(server, at, is_secure=False))


def test_names_the_server_that_it_was_made_for() -> None:
    servers = make_servers([1, 1, 1])
    cookies = sticky(pool_of(servers))
    for server in servers:
        assert cookies.find(f"a=b; lb={made(cookies, server)}", NOW + 1) == (server, False)


def test_every_process_with_the_secret_and_the_names_reads_it() -> None:
    value = made(sticky(), make_servers([1])[0])
    elsewhere = make_servers([1, 1])
    assert sticky(pool_of(elsewhere[::-1])).find(f"lb={value}", NOW) == (elsewhere[0], False)
    assert sticky(secret=SECRET + b"x").find(f"lb={value}", NOW) == (None, False)
    assert sticky(pool_of(elsewhere, "q")).find(f"lb={value}", NOW) == (None, False)


def test_shows_nothing_of_the_server() -> None:
    servers = make_servers([1, 1])
    cookies = sticky(pool_of(servers))
    line = cookies.line(servers[0], NOW, is_secure=False)
    assert b"10.0.0.1" not in line and b"5001" not in line
    assert b"10.0.0.1" not in urlsafe_b64decode(value_of(line))
    assert value_of(line)[:5] == made(cookies, servers[1])[:5], "the time"
    assert value_of(line)[6:] != made(cookies, servers[1])[6:]


@given(st.integers(0, 31), st.characters(min_codepoint=33, max_codepoint=126))
def test_any_other_character_makes_it_worthless(place: int, char: str) -> None:
    servers = make_servers([1, 1])
    cookies = sticky(pool_of(servers))
    value = made(cookies, servers[0])
    forged = value[:place] + char + value[place + 1 :]
    assert cookies.find(f"lb={forged}", NOW) == ((servers[0], False) if forged == value else (None, False))


@given(st.text(max_size=50))
def test_any_text_is_no_error(text: str) -> None:
    assert sticky().find(text, NOW) == sticky().find(f"lb={text}", NOW) == (None, False)


def test_gets_old() -> None:
    servers = make_servers([1])
    cookies = sticky(pool_of(servers), max_age_s=3600.0)
    field = f"lb={made(cookies, servers[0])}"
    assert cookies.find(field, NOW + 1800) == (servers[0], False)
    assert cookies.find(field, NOW + 1801) == (servers[0], True)
    assert cookies.find(field, NOW + 3600) == (servers[0], True)
    assert cookies.find(field, NOW + 3601) == (None, False)
    assert cookies.find(field, NOW - SKEW_S) == (servers[0], False)
    assert cookies.find(field, NOW - SKEW_S - 1) == (None, False)
    assert sticky(pool_of(servers)).find(field, NOW + 1e9) == (servers[0], False), "as long as the browser runs"


def test_follows_who_comes_and_goes() -> None:
    servers = make_servers([1, 1])
    pool = pool_of(servers)
    cookies = sticky(pool)
    field = f"lb={made(cookies, servers[0])}"
    pool.remove(servers[0])
    assert cookies.find(field, NOW) == (None, False)
    assert value_of(cookies.line(servers[0], NOW, is_secure=False)), "it answers what it still has"
    again = make_servers([1])[0]
    pool.add(again)
    assert cookies.find(field, NOW) == (again, False)


def test_of_several_the_first_good_one_counts_and_not_many_are_looked_at() -> None:
    servers = make_servers([1, 1])
    cookies = sticky(pool_of(servers))
    good = f"lb={made(cookies, servers[1])}"
    assert cookies.find(f"lb=x; {good}", NOW) == (servers[1], False)
    assert cookies.find("lb=x; " * MOST_COOKIES + good, NOW) == (None, False)


@pytest.mark.parametrize(
    ("settings", "is_secure", "attributes"),
    [
        ({}, False, "Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, "Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "on", "max_age_s": 90.0}, False, "Path=/; Max-Age=90; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "off", "same_site": "Strict", "path": "/a"}, True, "Path=/a; HttpOnly; SameSite=Strict"),
    ],
)
def test_attributes(settings: dict[str, object], is_secure: bool, attributes: str) -> None:
    servers = make_servers([1])
    line = sticky(pool_of(servers), **settings).line(servers[0], NOW, is_secure=is_secure).decode()
    assert line.partition("; ")[2] == attributes + "\r\n"
