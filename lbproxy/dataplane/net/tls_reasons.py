"""OpenSSL's names for what failed."""

from __future__ import annotations

import re
import ssl
from typing import Final

_TEXT: Final = re.compile(r"\[.*?\] (.*?) \(_ssl")


def reason_of(error: Exception) -> str:
    """OpenSSL's name for what failed, as WRONG_VERSION_NUMBER; "" if that is none of its errors.

    CPython's table does not have all of them: of those the error has a text, and None as its reason, of which typeshed
    does not know. So compiled code must not ask for `error.reason`: to it None is no text.
    """
    if not isinstance(error, ssl.SSLError):
        return ""
    reason: str | None = getattr(error, "reason", None)
    if reason:
        return reason
    found = _TEXT.search(str(error))
    return found[1].upper().replace(" ", "_") if found is not None else ""
