from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from lbproxy.control.discovery.aws import ask as module
from lbproxy.control.discovery.aws.ask import MAX_PAGES, MAX_WORDS, Ask, AwsError, cut


class Client:
    """Answers with pages; an exception among them is raised."""

    def __init__(self, *pages: Mapping[str, Any] | Exception) -> None:
        self.answers = pages
        self.is_closed = False

    def describe(self, **given: object) -> Mapping[str, Any]:
        return next(iter(self.paginate()))

    def get_paginator(self, operation: str) -> Client:
        return self

    def paginate(self, **given: object) -> Iterator[Mapping[str, Any]]:
        for page in self.answers:
            if isinstance(page, Exception):
                raise page
            yield page

    def close(self) -> None:
        self.is_closed = True


def asking(*pages: Mapping[str, Any] | Exception) -> Ask:
    made = Ask("eu-central-1")
    made._clients["ec2"] = Client(*pages)
    return made


def said_by_aws(code: str, message: str = "words") -> ClientError:
    told: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(told, "DescribeInstances")


def pages(ask: Ask) -> list[Any]:
    return list(ask.pages("ec2", "describe", "Things", Filters=[]))


def test_all_pages_are_one_answer() -> None:
    assert pages(asking({"Things": [1, 2]}, {"Things": []}, {"Things": [3]})) == [1, 2, 3]


def test_a_page_without_its_list_is_no_answer() -> None:
    with pytest.raises(AwsError, match="describe: the answer has no Things"):
        pages(asking({"Things": [1]}, {}))


def test_half_of_the_pages_are_no_answer() -> None:
    with pytest.raises(AwsError, match="DescribeInstances: InternalError: words"):
        pages(asking({"Things": [1]}, said_by_aws("InternalError")))


def test_an_answer_without_end_is_cut_short() -> None:
    with pytest.raises(AwsError, match=f"more than {MAX_PAGES} pages"):
        pages(asking(*[{"Things": []}] * (MAX_PAGES + 1)))


@pytest.mark.parametrize(
    ("code", "is_throttled"),
    [("RequestLimitExceeded", True), ("Throttling", True), ("ThrottlingException", True), ("InternalFailure", False)],
)
def test_who_is_asked_too_much_says_so(code: str, is_throttled: bool) -> None:
    ask = asking(said_by_aws(code))
    with pytest.raises(AwsError) as raised:
        ask.call("ec2", "describe")
    assert raised.value.is_throttled is is_throttled
    assert str(raised.value) == f"DescribeInstances: {code}: words" and raised.value.code == code


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired", "UnauthorizedOperation", "AccessDenied"])
def test_after_a_refusal_credentials_are_looked_for_again(code: str) -> None:
    ask = asking(said_by_aws(code))
    client = ask._clients["ec2"]
    with pytest.raises(AwsError, match=code):
        ask.call("ec2", "describe")
    assert client.is_closed and ask._clients == {} and ask._session is None


def test_who_has_no_credentials_looks_for_them_again() -> None:
    ask = asking(NoCredentialsError())
    with pytest.raises(AwsError, match="NoCredentialsError: Unable to locate credentials"):
        ask.call("ec2", "describe")
    assert ask._clients == {}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ReadTimeoutError(endpoint_url="http://x"), "ReadTimeoutError: Read timeout on endpoint URL"),
        (EndpointConnectionError(endpoint_url="http://x"), "Could not connect to the endpoint URL"),
        (ResponseParserError("Unable to parse response, invalid XML received"), "invalid XML"),
        (ValueError("Invalid endpoint: nowhere"), "ValueError: Invalid endpoint: nowhere"),
    ],
)
def test_what_is_no_answer_of_aws(error: Exception, told: str) -> None:
    ask = asking(error)
    with pytest.raises(AwsError, match=told) as raised:
        ask.call("ec2", "describe")
    assert not raised.value.is_throttled and ask._clients


def test_an_error_without_words_has_its_status() -> None:
    error = ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "ListTasks")
    with pytest.raises(AwsError, match="ListTasks: error: status 503"):
        asking(error).call("ec2", "describe")


def test_long_words_are_cut() -> None:
    assert cut("a\nb  c") == "a b c"
    assert cut("x" * 5000) == "x" * MAX_WORDS + "..."


class Session:
    region_name: str | None = None


@pytest.mark.parametrize(
    ("configured", "session", "environ", "region"),
    [
        ("eu-west-1", "eu-west-2", "eu-west-3", "eu-west-1"),
        ("", "eu-west-2", "eu-west-3", "eu-west-2"),
        ("", None, "eu-west-3", "eu-west-3"),
        ("", None, "", "eu-west-4"),
    ],
)
def test_the_region(
    configured: str, session: str | None, environ: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Ask(configured, {"AWS_REGION": environ})
    ask._session = Session()
    ask._session.region_name = session
    monkeypatch.setattr("botocore.utils.InstanceMetadataRegionFetcher.retrieve_region", lambda self: "eu-west-4")
    assert ask._region_in_force() == region


def test_no_region_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Ask("", {})
    ask._session = Session()
    monkeypatch.setattr("botocore.utils.InstanceMetadataRegionFetcher.retrieve_region", lambda self: None)
    with pytest.raises(AwsError, match="no region is known; set `region`"):
        ask._region_in_force()


def test_a_client_asks_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")  # else the network would be asked for some
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    ask = Ask("eu-central-1", {})
    config = ask._client("autoscaling").meta.config
    assert (config.connect_timeout, config.read_timeout) == (module.CONNECT_S, module.READ_S)
    assert config.retries["total_max_attempts"] == 1 and config.region_name == "eu-central-1"
    assert ask._client("autoscaling") is ask._clients["autoscaling"]
    assert not logging.getLogger("botocore.credentials").isEnabledFor(logging.ERROR), "it would log what signs requests"
    ask.close()
    assert ask._clients == {}
