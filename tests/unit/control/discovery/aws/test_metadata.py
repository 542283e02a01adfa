from __future__ import annotations

from collections.abc import Mapping
from urllib.error import URLError

import pytest

from lbproxy.control.discovery.aws.ask import AwsError
from lbproxy.control.discovery.aws.metadata import own_zone


class Platform:
    """Answers by the method and the end of the path; an error is raised."""

    def __init__(self, **answers: bytes | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def fetch(self, method: str, url: str, headers: Mapping[str, str]) -> bytes:
        self.asked.append((method, url, dict(headers)))
        answer = self.answers[url.rpartition("/")[2].replace("-", "_")]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_instance_is_asked_with_a_token() -> None:
    platform = Platform(token=b"secret", availability_zone=b"eu-central-1a\n")
    assert own_zone({}, platform.fetch) == "eu-central-1a"
    base = "http://169.254.169.254/latest"
    assert platform.asked == [
        ("PUT", f"{base}/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}),
        ("GET", f"{base}/meta-data/placement/availability-zone", {"X-aws-ec2-metadata-token": "secret"}),
    ]


def test_another_address_of_the_service() -> None:
    platform = Platform(token=b"secret", availability_zone=b"eu-central-1a")
    own_zone({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]/"}, platform.fetch)
    assert platform.asked[0][1] == "http://[fd00:ec2::254]/latest/api/token"


def test_a_task_of_ecs_is_told_by_its_agent() -> None:
    platform = Platform(task=b'{"AvailabilityZone": "eu-central-1c"}')
    assert own_zone({"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}, platform.fetch) == "eu-central-1c"
    assert platform.asked == [("GET", "http://169.254.170.2/v4/x/task", {})]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"token": URLError("timed out")}, "timed out; set `zone`"),
        ({"token": TimeoutError("timed out")}, "timed out; set `zone`"),
        ({"token": b"x", "availability_zone": b""}, "the answer is empty; set `zone`"),
        ({"token": b"\xff", "availability_zone": b"x"}, "set `zone`"),
    ],
)
def test_what_is_no_answer(answers: dict[str, bytes | Exception], told: str) -> None:
    with pytest.raises(AwsError, match=r"which zone is this\?") as raised:
        own_zone({}, Platform(**answers).fetch)
    assert told in str(raised.value)


@pytest.mark.parametrize("answer", [b"nonsense", b"[]", b"{}"])
def test_an_agent_that_answers_nonsense(answer: bytes) -> None:
    with pytest.raises(AwsError, match=r"which zone is this\?"):
        own_zone({"ECS_CONTAINER_METADATA_URI_V4": "http://agent"}, Platform(task=answer).fetch)


def test_who_is_told_not_to_ask_does_not() -> None:
    platform = Platform()
    with pytest.raises(AwsError, match="AWS_EC2_METADATA_DISABLED forbids"):
        own_zone({"AWS_EC2_METADATA_DISABLED": "true"}, platform.fetch)
    assert platform.asked == []
