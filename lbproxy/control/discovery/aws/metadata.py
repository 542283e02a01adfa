"""The zone in which this process runs, as the platform says: of a task of ECS, or of an instance (IMDSv2).

A session token is asked for first, as IMDSv2 wants it. Proxies of the environment are not used: the addresses are
link-local.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Mapping
from typing import Final
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from lbproxy.control.discovery.aws.ask import AwsError

INSTANCE: Final = "http://169.254.169.254"
TIMEOUT_S: Final = 2.0
TOKEN_S: Final = 60
MAX_BYTES: Final = 1 << 20

Fetch = Callable[[str, str, Mapping[str, str]], bytes]
"""method, URL and headers of a request; what is answered. Raises OSError."""


def fetch(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    """See Fetch."""
    try:
        with build_opener(ProxyHandler({})).open(
            Request(url, None, dict(headers), method=method), None, TIMEOUT_S
        ) as got:
            body: bytes = got.read(MAX_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"no answer in HTTP: {error!r}") from None
    return body


def own_zone(environ: Mapping[str, str] = os.environ, fetch: Fetch = fetch) -> str:
    """Raises AwsError. May take some seconds."""
    try:
        task = environ.get("ECS_CONTAINER_METADATA_URI_V4")
        if task:
            zone = str(json.loads(fetch("GET", f"{task}/task", {})).get("AvailabilityZone", ""))
        elif environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise AwsError("which zone is this? AWS_EC2_METADATA_DISABLED forbids to ask; set `zone`")
        else:
            base = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").rstrip("/") or INSTANCE
            lives = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            token = fetch("PUT", f"{base}/latest/api/token", lives).decode("ascii")
            path, knows = "/latest/meta-data/placement/availability-zone", {"X-aws-ec2-metadata-token": token}
            zone = fetch("GET", f"{base}{path}", knows).decode("ascii").strip()
    except AwsError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise AwsError(f"which zone is this? {why}; set `zone`") from None
    if not zone:
        raise AwsError("which zone is this? the answer is empty; set `zone`")
    return zone
