"""The net below all nets: what the event loop catches because no code of ours did.

Protocol callbacks contain their defects themselves. One that gets past them, in a timer or a reader, would be printed
by asyncio and counted nowhere. Here it is counted and logged like every other defect, and the connection that it
belongs to is ended, so that no client waits for an answer that nobody is working on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from lbproxy.telemetry.log import ThrottledLog

throttled = ThrottledLog(logging.getLogger("lbproxy"))

InternalError = Callable[[str, BaseException], None]


def install(loop: asyncio.AbstractEventLoop, internal_error: InternalError) -> None:
    """From now on the loop tells `internal_error` (where, exception)."""
    loop.set_exception_handler(lambda _, context: handle(context, internal_error))


def handle(context: dict[str, Any], internal_error: InternalError) -> None:
    """One report of the loop. An OSError is the network's doing and no defect: it is logged only.

    So is it when a TLS connection of the loop's own, that of a health check, is closed while the peer's last bytes are
    read: uvloop then finds that it cannot answer them any more.
    """
    error, message = context.get("exception"), str(context.get("message", ""))
    if error is None or isinstance(error, OSError) or _is_late_for_tls(error, message):
        throttled.warning(message, "event loop: %s: %s", message, error)
        return
    internal_error(f"the event loop ({message})", error)
    transport = context.get("transport")
    if isinstance(transport, asyncio.BaseTransport) or hasattr(transport, "abort"):
        with contextlib.suppress(OSError, RuntimeError, AttributeError):  # it is gone already
            transport.abort()  # type: ignore[union-attr]


def _is_late_for_tls(error: BaseException, message: str) -> bool:
    return isinstance(error, RuntimeError) and "SSL protocol" in message and "the handler is closed" in str(error)
