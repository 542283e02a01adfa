"""Sticky cookies: a client comes back to the server that answered it before.

A cookie is 24 bytes in base64url: when it was made (4), a pseudonym of the server (8), and a seal over both (12). The
pseudonym and the seal are HMAC-SHA-256 (RFC 2104, 5.2 of which allows them to be cut short) under the pool's secret, so
that a cookie shows nothing of the server and can't be made or changed without the secret. Servers count by pool and
name: every lbproxy with the same secret and names reads the same cookies, after a restart and with other addresses too.

What is forged, too old, from the future, or names a server that is not there counts as no cookie.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from lbproxy.domain.keys import cookies_of
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server

MOST_COOKIES: Final = 4
"""So many of one name are looked at: a browser sends two where two paths or domains have one."""
SKEW_S: Final = 300
"""A cookie may be so much younger than now: clocks of several lbproxy differ."""
RENEW_AT: Final = 0.5
"""A cookie that is older than this share of its life is replaced, so that who comes regularly stays."""

_LENGTH: Final = 32  # characters of a cookie


@dataclass(frozen=True, slots=True)
class StickySettings:
    """max_age_s: how long a cookie lives, 0.0: as long as the browser runs. same_site: "Lax", "Strict" or "None".
    secure: "auto" (where the client came over TLS), "on" or "off". wait_s: how long a request waits for its server
    where that has no slot, before it goes to another."""

    cookie: str
    secret: bytes
    max_age_s: float = 0.0
    path: str = "/"
    same_site: str = "Lax"
    secure: str = "auto"
    wait_s: float = 0.0


class Sticky:
    """The cookies of one pool, each called `name`. Times are seconds since the epoch, given by the caller."""

    __slots__ = ("_by_name", "_by_pseudonym", "_pool", "_tail", "_version", "name", "settings")

    def __init__(self, pool: Pool, settings: StickySettings) -> None:
        self._pool = pool
        self.settings = settings
        self.name = settings.cookie.encode("latin-1")
        self._by_pseudonym: dict[bytes, Server] = {}
        self._by_name: dict[str, bytes] = {}
        self._version = -1
        life = f"; Max-Age={int(settings.max_age_s)}" if settings.max_age_s else ""
        self._tail = f"; Path={settings.path}{life}; HttpOnly; SameSite={settings.same_site}".encode("latin-1")

    def find(self, field: str, wall: float) -> tuple[Server | None, bool]:
        """The server that the cookies in a Cookie field name, None for none; and whether the cookie is to be replaced
        though it is good."""
        for value in cookies_of(field, self.settings.cookie)[:MOST_COOKIES]:
            made_at, pseudonym = self._opened(value)
            age = wall - made_at
            if not pseudonym or age < -SKEW_S or (self.settings.max_age_s and age > self.settings.max_age_s):
                continue
            self._follow()
            server = self._by_pseudonym.get(pseudonym)
            if server is not None:
                return server, bool(self.settings.max_age_s) and age > self.settings.max_age_s * RENEW_AT
        return None, False

    def line(self, server: Server, wall: float, *, is_secure: bool) -> bytes:
        """The Set-Cookie line that names this server. is_secure: the client came over TLS."""
        self._follow()
        pseudonym = self._by_name.get(server.name)
        if pseudonym is None:  # it has just left
            pseudonym = self._pseudonym(server.name)
        body = int(wall).to_bytes(4, "big") + pseudonym
        value = urlsafe_b64encode(body + self._seal(body))
        secure = self.settings.secure
        flag = b"; Secure" if secure == "on" or (secure == "auto" and is_secure) else b""
        return b"Set-Cookie: %b=%b%b%b\r\n" % (self.name, value, self._tail, flag)

    def _opened(self, value: str) -> tuple[int, bytes]:
        """When a cookie was made, and its pseudonym; b"" if it was not made with the secret."""
        if len(value) != _LENGTH:
            return 0, b""
        try:
            raw = urlsafe_b64decode(value)
        except (binascii.Error, ValueError):
            return 0, b""
        body = raw[:12]
        if len(raw) != 24 or not hmac.compare_digest(raw[12:], self._seal(body)):
            return 0, b""
        return int.from_bytes(body[:4], "big"), body[4:]

    def _seal(self, body: bytes) -> bytes:
        return self._digest(b"seal\0" + body)[:12]

    def _pseudonym(self, name: str) -> bytes:
        return self._digest(b"server\0" + name.encode("utf-8", "surrogateescape"))[:8]

    def _digest(self, text: bytes) -> bytes:
        pool = self._pool.name.encode("utf-8", "surrogateescape")
        return hmac.digest(self.settings.secret, b"%b\0%b" % (pool, text), "sha256")

    def _follow(self) -> None:
        """Know the servers that there are now."""
        version = self._pool.members.version
        if version != self._version:
            self._version = version
            self._by_name = {server.name: self._pseudonym(server.name) for server in self._pool.servers}
            self._by_pseudonym = {self._by_name[server.name]: server for server in self._pool.servers}
