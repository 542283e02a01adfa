"""Instances of EC2: where they can be reached, and whether they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lbproxy.control.discovery.aws.ask import Asking, Item

RUNNING: Final = "running"
AT_ONCE: Final = 200  # values of a filter that AWS takes


@dataclass(frozen=True, slots=True)
class Instance:
    """address: of the kind that is wanted, "" if it has none. state: EC2's word, such as running or stopping."""

    name: str
    address: str
    zone: str
    state: str

    @property
    def is_running(self) -> bool:
        return self.state == RUNNING


def tagged(ask: Asking, tags: Mapping[str, str], kind: str) -> list[Instance]:
    """The running ones that have all these tags. kind: private, public or ipv6. Raises AwsError."""
    filters: list[Item] = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
    found = _described(ask, [*filters, {"Name": "instance-state-name", "Values": [RUNNING]}], kind)
    return sorted((item for item in found if item.is_running), key=lambda item: item.name)


def named(ask: Asking, names: Iterable[str], kind: str) -> dict[str, Instance]:
    """Those of these that EC2 knows, in any state, by id. Raises AwsError.

    They are filtered, not asked for: an id that EC2 does not know yet, or no more, would spoil the whole answer.
    """
    found: dict[str, Instance] = {}
    for some in portions(sorted(set(names)), AT_ONCE):
        for item in _described(ask, [{"Name": "instance-id", "Values": some}], kind):
            found[item.name] = item
    return found


def _described(ask: Asking, filters: Sequence[Item], kind: str) -> list[Instance]:
    groups = ask.pages("ec2", "describe_instances", "Reservations", Filters=filters)
    return [
        Instance(
            str(item["InstanceId"]),
            _address(item, kind),
            str(item.get("Placement", {}).get("AvailabilityZone", "")),
            str(item.get("State", {}).get("Name", "")),
        )
        for group in groups
        for item in group.get("Instances", ())
    ]


def _address(item: Item, kind: str) -> str:
    if kind == "private":
        return str(item.get("PrivateIpAddress") or "")
    if kind == "public":
        return str(item.get("PublicIpAddress") or "")
    cards = item.get("NetworkInterfaces", ())
    others = (entry.get("Ipv6Address") for card in cards for entry in card.get("Ipv6Addresses", ()))
    return str(item.get("Ipv6Address") or next((text for text in others if text), ""))


def portions(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Not more than so many at a time."""
    for first in range(0, len(items), size):
        yield list(items[first : first + size])
