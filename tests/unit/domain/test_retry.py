"""Which attempts may be repeated: every rule by its words, every fault by its row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbproxy import errors
from lbproxy.domain.retry import RetryPolicy, may_retry
from lbproxy.errors import Fault, Retry

DEFAULT = RetryPolicy()


def allowed(
    fault: Fault,
    policy: RetryPolicy = DEFAULT,
    *,
    is_idempotent: bool = False,
    retries_done: int = 0,
    is_replayable: bool = True,
) -> bool:
    return may_retry(policy, fault, is_idempotent=is_idempotent, retries_done=retries_done, is_replayable=is_replayable)


@pytest.mark.parametrize(
    ("fault", "post", "get"),
    [
        (errors.CONNECT_REFUSED, True, True),  # no connection, nothing sent
        (errors.CONNECT_UNREACHABLE, True, True),
        (errors.CONNECT_TIMEOUT, True, True),
        (errors.CONNECT_ERROR, True, True),
        (errors.TLS_HANDSHAKE, True, True),
        (errors.CLOSED_UNSENT, True, True),  # found dead before writing: nothing was sent
        (errors.CLOSED_UNACKED, True, True),  # FIN and nothing acknowledged
        (errors.CLOSED_REUSED, False, True),  # may have been executed
        (errors.CLOSED_EARLY, False, True),  # a new connection that closed
        (errors.RESET, False, True),
        (errors.RESPONSE_TIMEOUT, False, False),  # a time-out: only with on_timeout
        (errors.TRUNCATED_HEAD, False, False),  # a part of the answer came
        (errors.TRUNCATED_BODY, False, False),
        (errors.BAD_RESPONSE, False, False),
        (errors.CLIENT_ABORT, False, False),  # the client is gone
        (errors.LOCAL_RESOURCE, False, False),
        (errors.LOCAL_PORTS, False, False),
    ],
    ids=lambda value: getattr(value, "word", None),
)
def test_the_rules(fault: Fault, post: bool, get: bool) -> None:
    assert allowed(fault) is post
    assert allowed(fault, is_idempotent=True) is get


@pytest.mark.parametrize("fault", errors.FAULTS.values(), ids=lambda fault: fault.word)
def test_what_holds_for_every_fault(fault: Fault) -> None:
    everything = replace(DEFAULT, on_timeout=True)
    assert not allowed(fault, everything, is_idempotent=True, is_replayable=False)
    assert not allowed(fault, everything, is_idempotent=True, retries_done=2)
    assert not allowed(fault, replace(everything, attempts=0), is_idempotent=True)
    assert allowed(fault, everything, is_idempotent=True, retries_done=1) is (fault.retry is not Retry.NEVER)
    assert allowed(fault, everything) is (fault.retry is Retry.ALWAYS)


def test_each_word_of_retry_on_switches_its_own_cause() -> None:
    no_connect = replace(DEFAULT, on_connect=False)
    assert not allowed(errors.CONNECT_REFUSED, no_connect, is_idempotent=True)
    assert allowed(errors.CLOSED_EARLY, no_connect, is_idempotent=True)
    assert allowed(errors.CLOSED_UNACKED, no_connect)
    no_reset = replace(DEFAULT, on_reset=False)
    assert not allowed(errors.CLOSED_EARLY, no_reset, is_idempotent=True)
    assert not allowed(errors.CLOSED_REUSED, no_reset, is_idempotent=True)
    assert allowed(errors.CONNECT_REFUSED, no_reset)
    with_timeout = replace(DEFAULT, on_timeout=True, on_reset=False)
    assert allowed(errors.RESPONSE_TIMEOUT, with_timeout, is_idempotent=True)
    assert not allowed(errors.RESPONSE_TIMEOUT, with_timeout)
