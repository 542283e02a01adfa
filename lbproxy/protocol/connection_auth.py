"""Authentication that holds for a connection and not for a request: NTLM, Negotiate and their kin.

RFC 4559 section 6 and MS-NTHT: once its handshake is through, whoever sends the next request on that connection is the
user. So a connection to a server that has met such a handshake, or one step of it, must not be shared among clients.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy.compiling import i64

_LOWER: Final = 0x20  # what a letter has in lower case only
_K: Final = 0x6B
_N: Final = 0x6E
_MAY_BEGIN: Final = frozenset((b"n", b"N", b"k", b"K", b" ", b"\t"))  # a scheme of these; most credentials do not
_scheme = re.compile(rb"[ \t]*(?:ntlm|negotiate|kerberos|nego2)(?![!#$%&'*+.^_`|~0-9a-z-])", re.IGNORECASE).match
# In a list of challenges, in any place. That of a quoted string counts too: to share less than one might does no harm.
_challenge = re.compile(
    rb"(?<![!#$%&'*+.^_`|~0-9a-z-])(?:ntlm|negotiate|kerberos|nego2)(?![!#$%&'*+.^_`|~0-9a-z-])", re.IGNORECASE
).search

CHALLENGES: Final = frozenset((b"www-authenticate", b"proxy-authenticate", b"authentication-info", b"persistent-auth"))


def may_bind(first: i64) -> bool:
    """Can credentials that begin with this octet authenticate their connection?"""
    return first | _LOWER in (_K, _N)


def is_bound_by(credentials: bytes) -> bool:
    """Does this value of Authorization authenticate its connection?"""
    return credentials[:1] in _MAY_BEGIN and _scheme(credentials) is not None


def binds(name: bytes, value: bytes) -> bool:
    """Does this field of an answer (one of CHALLENGES, in lower case) say that its connection is or can be a user's?"""
    return name == b"persistent-auth" or _challenge(value) is not None
