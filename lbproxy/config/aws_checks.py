"""What stands under `discovery.aws` of a pool: one question to AWS, and the library that asks it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from lbproxy.config.aws_model import Aws, region_of
from lbproxy.config.pool_model import Pool
from lbproxy.config.problems import Path
from lbproxy.config.source import Document

AWS_KINDS: Final = ("ec2", "auto_scaling_group", "target_group", "ecs")
AWS_LIBRARY: Final = "boto3"
OFTEN_S: Final = 5.0


def has_library(name: str) -> bool:
    """Is it installed? Looks for it without importing it."""
    return find_spec(name) is not None


def check_aws(pool: Pool, path: Path, document: Document, has: Callable[[str], bool] = has_library) -> None:
    """Complain of what cannot be. has: is a library installed?"""
    if pool.discovery is not None and pool.discovery.aws is not None:
        _check_aws(pool.discovery.aws, (*path, "discovery", "aws"), document, has)


def _check_aws(aws: Aws, place: Path, document: Document, has: Callable[[str], bool]) -> None:
    if not has(AWS_LIBRARY):
        document.object_to(
            place, f"needs {AWS_LIBRARY}, which is not installed", "pip install 'lbproxy[aws]'", at_key=True
        )
    given = [kind for kind in AWS_KINDS if getattr(aws, kind) is not None]
    if len(given) != 1:
        written = f"has {' and '.join(given)}" if given else "does not say which servers"
        document.object_to(place, written, f"write one of {', '.join(AWS_KINDS)}", at_key=True)
        return
    (kind,) = given
    _check_port(aws, kind, place, document)
    if aws.ec2 is not None and not aws.ec2.tags:
        document.object_to((*place, "ec2", "tags"), "needs at least one tag, or every instance would be a server")
    if aws.target_group is not None and aws.region not in (None, region_of(aws.target_group)):
        document.object_to((*place, "region"), f"is not that of the target group, {region_of(aws.target_group)}")
    if aws.complete_lifecycle and kind != "auto_scaling_group":
        document.object_to((*place, "complete_lifecycle"), "belongs to `auto_scaling_group`", at_key=True)
    if aws.zone != "auto" and not aws.prefer_zone:
        document.warn((*place, "zone"), "has no effect without `prefer_zone: true`", at_key=True)
    if aws.interval < OFTEN_S:
        document.warn(
            (*place, "interval"), f"asks AWS more than once in {OFTEN_S:g}s, and AWS bounds the calls of an account"
        )


def _check_port(aws: Aws, kind: str, place: Path, document: Document) -> None:
    own = None if aws.ec2 is None else aws.ec2.port
    if kind in ("ec2", "auto_scaling_group") and aws.port is None and own is None:
        document.object_to(place, f"needs the `port` of the servers: `{kind}` does not tell it", at_key=True)
    if own is not None and aws.port is not None:
        document.object_to((*place, "port"), "stands under `ec2` too", "remove one of them", at_key=True)
