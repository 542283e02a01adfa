"""After what there is a second attempt: the words are those of the rules."""

from __future__ import annotations

import pytest

from lbproxy.domain.retry import RetryPolicy, may_retry
from lbproxy.domain.retry_words import Cause, causes
from lbproxy.errors import FAULTS, Retry, Side


def told(policy: RetryPolicy | None = None, **facts: bool) -> dict[str, Cause]:
    known = {"is_idempotent": False, "has_tls": False, "has_other": False, **facts}
    found = causes(policy or RetryPolicy(), method="POST", **known)
    return {cause.word: cause for cause in found}


def test_a_post_is_repeated_where_nothing_was_executed() -> None:
    found = told()
    assert found["connect_refused"].is_retried
    assert found["closed_unsent"].is_retried
    assert found["reset"] == Cause("reset", False, "POST may have been executed (retry.idempotent)")
    assert "tls_verify" not in found
    assert "bad_response" not in found  # never repeated, whatever the config says


def test_what_may_be_executed_twice_is_repeated_after_more() -> None:
    found = told(is_idempotent=True)
    assert found["reset"].is_retried
    assert found["response_timeout"] == Cause("response_timeout", False, "retry.on has no timeout")
    assert told(RetryPolicy(on_timeout=True), is_idempotent=True)["response_timeout"].is_retried
    assert told(RetryPolicy(on_reset=False), is_idempotent=True)["reset"].why == "retry.on has no reset"


def test_settings_that_switch_it_off() -> None:
    assert {cause.why for cause in told(RetryPolicy(attempts=0)).values()} == {"retry is off"}
    assert told(RetryPolicy(on_connect=False))["connect_refused"].why == "retry.on has no connect"


def test_another_handshake_needs_another_server() -> None:
    assert told(has_tls=True)["tls_verify"] == Cause("tls_verify", False, "no other server is usable")
    assert told(has_tls=True, has_other=True)["tls_verify"].is_retried


def test_statuses() -> None:
    policy = RetryPolicy(status=frozenset({503, 502}), trust_retry_after=True)
    assert told(policy, is_idempotent=True)["503"].is_retried
    assert told(policy)["502"].why == "POST may have been executed (retry.idempotent)"
    assert told(policy)["503"].why.endswith(", unless it has Retry-After")


@pytest.mark.parametrize("is_idempotent", [False, True])
def test_they_are_the_rules_of_the_data_plane(is_idempotent: bool) -> None:
    for policy in (RetryPolicy(), RetryPolicy(on_timeout=True), RetryPolicy(on_connect=False), RetryPolicy(attempts=0)):
        found = told(
            policy, is_idempotent=is_idempotent, has_tls=True, has_other=True, has_http2=True, may_lack_http2=True
        )
        for fault in FAULTS.values():
            is_told = fault.word in found
            is_known = fault.side is Side.UPSTREAM and fault.retry is not Retry.NEVER
            assert is_told == (is_known and fault.word != "retryable_status")
            if is_told:
                assert found[fault.word].is_retried == may_retry(
                    policy, fault, is_idempotent=is_idempotent, retries_done=0, is_replayable=True
                )


def test_what_only_http2_has_is_named_where_it_is_spoken() -> None:
    assert "goaway_unprocessed" not in told()
    found = told(has_http2=True)
    assert found["goaway_unprocessed"].is_retried and found["refused_stream"].is_retried
    assert not found["stream_reset"].is_retried
    assert "no_grpc" not in found and told(has_http2=True, may_lack_http2=True)["no_grpc"].is_retried
