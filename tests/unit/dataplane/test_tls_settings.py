"""Certificates by name, and settings that are replaced while connections live."""

from __future__ import annotations

import ssl
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbproxy.config.certificates import Certificate, FileProblem
from lbproxy.dataplane.tls_settings import (
    ListenerContexts,
    ListenerTlsFiles,
    ListenerTlsSettings,
    PoolTlsFiles,
    PoolTlsSettings,
    asked_for,
)
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def contexts(count: int) -> list[ssl.SSLContext]:
    return [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(count)]


NAMES = (("first.org",), ("a.example.com", "b.example.com"), ("*.example.com", "a.example.com"), ("10.0.0.1",))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("first.org", 0),
        ("a.example.com", 1),
        ("A.Example.COM.", 1),
        ("c.example.com", 2),
        ("x.c.example.com", 0),
        ("example.com", 0),
        ("*.example.com", 2),
        ("10.0.0.1", 3),
        ("", 0),
        ("org", 0),
    ],
)
def test_the_certificate_for_a_name(name: str, index: int) -> None:
    made = contexts(len(NAMES))
    loaded = ListenerContexts(made, tuple(Certificate("", names, 0, 0) for names in NAMES))
    assert loaded.find(name) is made[index]


@pytest.mark.parametrize(
    ("name", "host", "is_misdirected"),
    [
        ("first.org", "first.org", False),
        ("first.org", "FIRST.org.", False),
        ("first.org", "a.example.com", True),
        ("first.org", "z.example.com", True),
        ("first.org", "10.0.0.1", True),
        ("a.example.com", "b.example.com", False),  # one certificate for both
        ("a.example.com", "c.example.com", True),
        ("c.example.com", "d.example.com", False),  # the wildcard is for both
        ("c.example.com", "a.example.com", False),  # and has this name besides
        ("c.example.com", "first.org", True),
        ("first.org", "elsewhere.net", False),  # no certificate is for it
        ("nowhere.net", "first.org", False),  # the first one is shown to who asks for something else
        ("nowhere.net", "a.example.com", True),
        ("first.org", "", False),
    ],
)
def test_a_host_of_another_certificate(name: str, host: str, is_misdirected: bool) -> None:
    loaded = ListenerContexts(contexts(len(NAMES)), tuple(Certificate("", names, 0, 0) for names in NAMES))
    assert loaded.is_misdirected(name, host) is is_misdirected


def test_what_was_asked_for_is_remembered_where_it_matters() -> None:
    made = contexts(2)
    loaded = ListenerContexts(made, (Certificate("", ("a",), 0, 0), Certificate("", ("b",), 0, 0)))
    connection: Any = SimpleNamespace(context=made[0])
    assert asked_for(connection) == ""
    loaded._choose(connection, "a", made[0])
    assert asked_for(connection) == "a"


def test_the_first_certificate_needs_no_callback() -> None:
    (context,) = contexts(1)
    loaded = ListenerContexts([context], (Certificate("", ("a",), 0, 0),))
    assert loaded.context is context
    assert context.sni_callback is None


def test_a_name_switches_the_connection_s_context() -> None:
    made = contexts(2)
    loaded = ListenerContexts(made, (Certificate("", ("a",), 0, 0), Certificate("", ("b",), 0, 0)))
    assert made[0].sni_callback is not None
    for name, expected in (("b", made[1]), ("a", made[0]), (None, made[0])):
        connection: Any = SimpleNamespace(context=made[0])
        loaded._choose(connection, name, made[0])
        assert connection.context is expected


def test_a_listener_s_files(authority: Authority) -> None:
    one, two = authority.issue("one", "one.org"), authority.issue("two", "two.org")
    files = ListenerTlsFiles(
        ((one.cert, one.key), (two.cert, two.key)), client_ca=authority.ca, client_verify="optional"
    )
    assert files.paths == (one.cert, one.key, two.cert, two.key, authority.ca)
    tls = ListenerTlsSettings(files, files.load(), limit=5, timeout_s=1.0)
    assert tls.asks_for_certificate
    assert [item.names for item in tls.loaded.certificates] == [("one.org",), ("two.org",)]
    before = tls.loaded
    tls.use(tls.load())
    assert tls.loaded is not before
    with pytest.raises(FileProblem, match="there is no file /nowhere"):
        ListenerTlsFiles((("/nowhere", one.key),)).load()


def test_a_pool_s_files(authority: Authority) -> None:
    mine = authority.issue("mine", "mine.org")
    files = PoolTlsFiles(ca=authority.ca, cert=mine.cert, key=mine.key, server_name="model.internal")
    assert files.paths == (authority.ca, mine.cert, mine.key)
    tls = PoolTlsSettings(files, files.load())
    assert tls.name_of("10.0.0.1") == "model.internal"
    plain = PoolTlsSettings(PoolTlsFiles(verify=False), PoolTlsFiles(verify=False).load())
    assert (plain.name_of("host"), plain.name_of("")) == ("host", None)
    assert (plain.name_of("A.Example."), plain.name_of("fe80::1%eth0")) == ("a.example", "fe80::1")
    assert plain.files.paths == ()


@pytest.mark.parametrize(
    ("alpn", "is_another"), [((), False), (("h2",), False), (("http/1.1",), False), (("h2", "http/1.1"), True)]
)
def test_http_1_has_a_context_of_its_own_where_the_server_may_choose(
    alpn: tuple[str, ...], *, is_another: bool
) -> None:
    files = PoolTlsFiles(verify=False, alpn=alpn)
    tls = PoolTlsSettings(files, files.load())
    assert (tls.http1 is not tls.context) is is_another
    before = tls.http1
    tls.use(tls.load())
    assert tls.http1 is not before
    server = SimpleNamespace(tls_session=None)
    ended = SimpleNamespace(context=tls.http1, session=SimpleNamespace(has_ticket=True))
    tls.keep_session(server, cast(ssl.SSLObject, ended))
    assert (tls.session(server) is None) is is_another, "a session is for the context that made it"


def test_sessions_are_kept_for_the_context_that_made_them(authority: Authority) -> None:
    files = PoolTlsFiles(ca=authority.ca)
    tls = PoolTlsSettings(files, files.load())
    server, session = SimpleNamespace(tls_session=None), SimpleNamespace(has_ticket=True)

    def ended(context: ssl.SSLContext, session: object) -> ssl.SSLObject:
        return cast(ssl.SSLObject, SimpleNamespace(context=context, session=session))

    tls.keep_session(server, ended(tls.context, None))
    tls.keep_session(server, ended(tls.context, SimpleNamespace(has_ticket=False)))
    tls.keep_session(server, ended(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), session))
    assert tls.session(server) is None
    tls.keep_session(server, ended(tls.context, session))
    assert tls.session(server) is session
    tls.forget(server)
    assert tls.session(server) is None
    tls.keep_session(server, ended(tls.context, session))
    tls.use(tls.load())
    assert tls.session(server) is None  # whom the old CA trusted the new one may not


def test_a_session_goes_with_its_server(authority: Authority) -> None:
    """Servers found by name come and go for months; a session is some kilobytes."""

    class Session:
        has_ticket = True

    files = PoolTlsFiles(ca=authority.ca)
    tls = PoolTlsSettings(files, files.load())
    server, session = SimpleNamespace(tls_session=None), Session()
    left = weakref.ref(session)
    tls.keep_session(server, cast(ssl.SSLObject, SimpleNamespace(context=tls.context, session=session)))
    del session
    assert left() is not None and tls.session(server) is left()
    del server
    assert left() is None
