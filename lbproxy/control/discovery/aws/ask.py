"""Questions to AWS, by boto3: the only module that knows it.

It is imported at the first question, in the thread that asks: 1 s of CPU and 35 MB that nobody else pays, and that all
who ask pay once, as they share what describes the services. Every call is signed with what boto3 finds where it always
looks (environment, profile, web identity, container, instance). boto3 repeats nothing here, as the source has a
back-off of its own.

After an error of credentials all is made anew for the next question: a profile or a file may have been renewed.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

CONNECT_S: Final = 3.0
READ_S: Final = 5.0  # for a part of an answer
MAX_PAGES: Final = 200
MAX_WORDS: Final = 300  # characters of a message of AWS that are told; UnauthorizedOperation has a kilobyte of code
THROTTLES: Final = frozenset(
    (
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    )
)
REFUSALS: Final = frozenset(
    (
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    )
)

# Their own lines: credentials found, refreshed, not refreshed with a traceback; and at `debug` whole requests, with the
# signature and the session token. What is wrong is told by the source.
_TALKATIVE: Final = ("boto3", "botocore", "urllib3")

Item = Mapping[str, Any]
_making: Final = threading.Lock()  # sessions may be used by several threads, but not made
_loaders: Final[list[Any]] = []  # the one that has read what describes the services


class AwsError(OSError):
    """No answer; the text says why. is_throttled: AWS asks for fewer questions. code: AWS's word for it, or ""."""

    def __init__(self, why: str, *, is_throttled: bool = False, code: str = "") -> None:
        super().__init__(why)
        self.is_throttled = is_throttled
        self.code = code


class Asking(Protocol):
    """Raises AwsError."""

    def call(self, service: str, operation: str, **given: object) -> Item:
        """The answer to one question."""
        ...

    def pages(self, service: str, operation: str, key: str, **given: object) -> Sequence[Any]:
        """What stands under `key` on all pages of an answer."""
        ...

    def close(self) -> None:
        """Let the connections go; the next question makes new ones."""
        ...


class Ask:
    """region: "" for what the platform says."""

    def __init__(self, region: str = "", environ: Mapping[str, str] = os.environ) -> None:
        self._region = region
        self._environ = environ
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    def call(self, service: str, operation: str, **given: object) -> Item:
        """See Asking."""
        errors = self._errors()
        try:
            answer: Item = getattr(self._client(service), operation)(**given)
        except errors as error:
            raise self._told(error) from None
        return answer

    def pages(self, service: str, operation: str, key: str, **given: object) -> Sequence[Any]:
        """See Asking. An answer without the key is none: AWS sends an empty list where there is nothing."""
        errors = self._errors()
        found: list[Any] = []
        try:
            pages = self._client(service).get_paginator(operation).paginate(**given)
            for number, page in enumerate(pages, start=1):
                if number > MAX_PAGES:
                    raise AwsError(f"{operation}: the answer has more than {MAX_PAGES} pages")
                found += needed(page, key, operation)
        except errors as error:
            raise self._told(error) from None
        return found

    def close(self) -> None:
        """See Asking."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._session = None

    def _errors(self) -> tuple[type[Exception], ...]:
        exceptions = importlib.import_module("botocore.exceptions")
        parsers = importlib.import_module("botocore.parsers")
        # ValueError: what botocore says of an endpoint that is no URL.
        return exceptions.BotoCoreError, exceptions.ClientError, parsers.ResponseParserError, ValueError

    def _client(self, service: str) -> Any:
        client = self._clients.get(service)
        if client is None:
            with _making:
                client = self._clients[service] = self._made(service)
        return client

    def _made(self, service: str) -> Any:
        if self._session is None:
            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            core = importlib.import_module("botocore.session").get_session()
            if _loaders:
                core.register_component("data_loader", _loaders[0])
            else:
                _loaders.append(core.get_component("data_loader"))
            self._session = importlib.import_module("boto3.session").Session(botocore_session=core)
        config = importlib.import_module("botocore.config").Config(
            region_name=self._region_in_force(),
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            user_agent_extra="lbproxy",
        )
        return self._session.client(service, config=config)

    def _region_in_force(self) -> str:
        region = self._region or self._session.region_name or self._environ.get("AWS_REGION")
        if not region:
            fetcher = importlib.import_module("botocore.utils").InstanceMetadataRegionFetcher
            region = self._region = fetcher(timeout=1.0, num_attempts=1).retrieve_region() or ""
        if not region:
            raise AwsError("no region is known; set `region`, or AWS_DEFAULT_REGION")
        return str(region)

    def _told(self, error: Exception) -> AwsError:
        """Why there is no answer. What refuses us may be another one's credentials next time."""
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            kind = type(error).__name__
            if "Credential" in kind or "Token" in kind or "Profile" in kind:
                self.close()
            return AwsError(cut(f"{kind}: {error}"))
        told = response.get("Error", {})
        code, operation = str(told.get("Code", "")), getattr(error, "operation_name", "")
        if code in REFUSALS:
            self.close()
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "?")
        words = told.get("Message") or f"status {status}"
        return AwsError(cut(f"{operation}: {code or 'error'}: {words}"), is_throttled=code in THROTTLES, code=code)


def needed(answer: Item, key: str, operation: str) -> Sequence[Any]:
    """The list that an answer must have. Raises AwsError."""
    value = answer.get(key)
    if not isinstance(value, list):
        raise AwsError(f"{operation}: the answer has no {key}")
    return value


def cut(text: str) -> str:
    """One line, and not too long a one."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}..."
