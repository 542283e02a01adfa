import pytest
from aiohttp import web

from lbproxy.control.access import Access, Token, is_local_host, is_local_peer
from lbproxy.control.caller import Caller

REMOTE, LOCAL = "192.0.2.9", "127.0.0.1"


def status_of(
    method: str = "GET",
    peer: str = LOCAL,
    host: str = "127.0.0.1:8404",
    *,
    token: str | None = None,
    sent: str | None = None,
    origin: str | None = None,
) -> int:
    """The status that refuses a call, 200 if it is allowed."""
    access = Access([] if token is None else [Token("admin.token", token)])
    try:
        access.check(method=method, authorization=sent, host=host, origin=origin, peer=peer)
    except web.HTTPException as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("method", "peer", "token", "sent", "expected"),
    [
        ("GET", LOCAL, None, None, 200),
        ("GET", REMOTE, None, None, 200),
        ("PATCH", LOCAL, None, None, 200),
        ("PATCH", "unix", None, None, 200),
        ("PATCH", "::1", None, None, 200),
        ("PATCH", REMOTE, None, None, 403),
        ("DELETE", "", None, None, 403),
        ("GET", LOCAL, "s3cret", None, 200),
        ("GET", "unix", "s3cret", None, 200),
        ("GET", REMOTE, "s3cret", None, 401),
        ("GET", REMOTE, "s3cret", "Bearer s3cret", 200),
        ("POST", LOCAL, "s3cret", None, 401),
        ("POST", "unix", "s3cret", None, 401),
        ("POST", REMOTE, "s3cret", "bearer s3cret", 200),
        ("POST", LOCAL, "s3cret", "Bearer wrong", 401),
        ("GET", LOCAL, "s3cret", "Bearer wrong", 401),
        ("GET", LOCAL, "s3cret", "Basic s3cret", 401),
        ("POST", LOCAL, "s3cret", "Bearer s3cr\u00e9t", 401),
        ("POST", LOCAL, "s3cret", "Bearer", 401),
    ],
)
def test_who_may_do_what(method: str, peer: str, token: str | None, sent: str | None, expected: int) -> None:
    assert status_of(method, peer, token=token, sent=sent) == expected


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8404", "", "127.0.0.1.evil.example", "localhost.evil"])
def test_a_rebound_name_is_refused(method: str, host: str) -> None:
    assert status_of(method, host=host) == 403


def test_a_rebound_name_is_no_matter_with_the_token_or_over_a_unix_socket() -> None:
    assert status_of("PATCH", host="lb.example", token="s3cret", sent="Bearer s3cret") == 200
    assert status_of("PATCH", "unix", host="lb.example") == 200


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8404", 200),
        ("http://127.0.0.1:9999", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, expected: int) -> None:
    assert status_of("PATCH", origin=origin) == expected
    assert status_of("PATCH", origin=origin, token="s3cret", sent="Bearer s3cret") == 200


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("unix", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_local_peers(peer: str, expected: bool) -> None:
    assert is_local_peer(peer) is expected


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "10.0.0.1", "10.0.0.1:8404", "[::1]", "[::1]:8404"])
def test_local_hosts(host: str) -> None:
    assert is_local_host(host)


READS, CI = Token("monitoring", "reads", may_write=False), Token("ci", "writes")


@pytest.mark.parametrize("peer", [LOCAL, REMOTE, "unix"])
@pytest.mark.parametrize("tokens", [[READS, CI], [CI, READS]])
def test_each_token_has_its_name_and_scope(peer: str, tokens: list[Token]) -> None:
    def caller(method: str, secret: str) -> Caller:
        return Access(tokens).check(
            method=method, authorization=f"Bearer {secret}", host="lb.example", origin=None, peer=peer
        )

    assert caller("GET", "reads") == Caller("monitoring", peer)
    assert caller("HEAD", "writes") == caller("PATCH", "writes") == Caller("ci", peer)
    with pytest.raises(web.HTTPForbidden) as refusal:
        caller("PATCH", "reads")
    assert refusal.value.text == "The token monitoring may only read (scope: read)."
    for secret in ("", "read", "readss", "writes "[:5]):
        with pytest.raises(web.HTTPUnauthorized):
            caller("GET", secret)


def test_a_token_is_compared_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time would say which of them it is like."""
    compared: list[bytes] = []

    def compare(sent: bytes, token: bytes) -> bool:
        compared.append(token)
        return sent == token

    monkeypatch.setattr("hmac.compare_digest", compare)
    for secret in ("reads", "writes"):
        Access([READS, CI]).check(method="GET", authorization=f"Bearer {secret}", host="", origin=None, peer=REMOTE)
    assert compared == [b"reads", b"writes"] * 2


@pytest.mark.parametrize(
    ("host", "expected"),
    [("lb.example", 200), ("LB.example:8404", 200), ("lb.example.", 200), ("x.lb.example", 403), ("evil.example", 403)],
)
def test_names_of_the_admin_address(host: str, expected: int) -> None:
    def status(origin: str | None) -> int:
        try:
            Access([], ["lb.example"]).check(method="PATCH", authorization=None, host=host, origin=origin, peer=LOCAL)
        except web.HTTPException as refusal:
            return refusal.status
        return 200

    assert status(None) == status(f"http://{host}") == expected
    assert status("http://evil.example") == (403 if host != "evil.example" else expected)


TOKENS = [Token("ci", "s3cret"), Token("eye", "look", may_write=False)]


@pytest.mark.parametrize(
    ("tokens", "sent", "peer", "may_write", "why_not"),
    [
        ([], None, LOCAL, True, ""),
        ([], None, REMOTE, False, "Without admin.token, calls that change something are taken from loopback only."),
        (TOKENS, None, LOCAL, False, "Calls that change something need a bearer token (admin.token, admin.tokens)."),
        (TOKENS, "Bearer s3cret", REMOTE, True, ""),
        (TOKENS, "Bearer look", LOCAL, False, "The token eye may only read (scope: read)."),
    ],
)
def test_who_may_read_is_told_whether_it_may_change_something(
    tokens: list[Token], sent: str | None, peer: str, may_write: bool, why_not: str
) -> None:
    access = Access(tokens)
    caller = access.check(method="GET", authorization=sent, host="127.0.0.1", origin=None, peer=peer)
    rights = access.rights(caller, authorization=sent, host="127.0.0.1", origin=None, peer=peer)
    assert rights == {
        "token": caller.token or None,
        "peer": peer,
        "may_write": may_write,
        "why_not": why_not or None,
        "takes_token": bool(tokens),
    }
