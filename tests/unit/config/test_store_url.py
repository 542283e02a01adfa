"""Where Redis is, and who asks it."""

from __future__ import annotations

import pytest

from lbproxy.config.store_url import StoreTls, StoreUrl, read_store_url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("redis://h", StoreUrl("h", 6379)),
        ("redis://h:1/2", StoreUrl("h", 1, db=2)),
        ("redis://h/?db=3", StoreUrl("h", 6379, db=3)),
        ("redis://[::1]:6380/", StoreUrl("::1", 6380)),
        ("redis://:p%40ss@h", StoreUrl("h", 6379, password="p@ss")),
        ("redis://u:p@h", StoreUrl("h", 6379, user="u", password="p")),
        ("redis://h?username=u&password=p%26", StoreUrl("h", 6379, user="u", password="p&")),
        ("unix:///run/a%20b.sock?db=4", StoreUrl(path="/run/a b.sock", db=4)),
        ("unix://u:p@/run/r.sock", StoreUrl(path="/run/r.sock", user="u", password="p")),
        ("rediss://h", StoreUrl("h", 6379, tls=StoreTls())),
        (
            "rediss://h:1/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False",
            StoreUrl("h", 1, tls=StoreTls("/ca.pem", "/c.pem", "/k.pem", checks_name=False)),
        ),
        ("rediss://h?ssl_cert_reqs=none", StoreUrl("h", 6379, tls=StoreTls(verify="none"))),
    ],
)
def test_urls(text: str, found: StoreUrl) -> None:
    assert read_store_url(text) == found


EXPECTED = "expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH, got "


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", EXPECTED + "''"),
        ("h:6379", EXPECTED + "'h:6379'"),
        ("http://u:secret@h", EXPECTED + "'h'"),
        ("redis://", EXPECTED + "'redis://'"),
        ("redis://u:secret@h:x", EXPECTED + "'h:x'"),
        ("redis://h:99999", EXPECTED + "'redis://h:99999'"),
        ("redis://u:secret@[h?password=secret", EXPECTED + "'[h'"),
        ("redis://h#f", EXPECTED + "'redis://h#f'"),
        ("redis://h h", EXPECTED + "'redis://h h'"),
        ("unix://", EXPECTED + "'unix://'"),
        ("unix://h/p", EXPECTED + "'unix://h/p'"),
        ("redis://h/a", "the database is a number, such as redis://HOST:PORT/0, got 'a'"),
        ("redis://h/1/2", "the database is a number, such as redis://HOST:PORT/0, got '1/2'"),
        ("unix:///p?db=-1", "the database is a number, such as redis://HOST:PORT/0, got '-1'"),
        ("redis://h?protocol=3", "'protocol' can't stand in a URL of redis://; what can is db, username, password"),
        ("redis://h?ssl_cert_reqs=none", "'ssl_cert_reqs' can't stand in a URL of redis://"),
        ("rediss://h?ssl_cert_reqs=some", "ssl_cert_reqs is one of required, optional, none, got 'some'"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname is true or false, got 'maybe'"),
        ("rediss://h?ssl_keyfile=/k", "ssl_keyfile needs ssl_certfile"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError) as error:
        read_store_url(text)
    assert str(error.value).startswith(why)
    assert "secret" not in str(error.value)
