"""What one look at AWS shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from lbproxy.address import Address
from lbproxy.control.discovery.source import Found


@dataclass(slots=True)
class Picture:
    """found: the servers. lacking: what is wrong with some of them. says: what AWS says of servers, by address, that is
    shown and not gone by. waiting: the addresses of instances that are Terminating:Wait, by id; "" if not known."""

    found: list[Found] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    says: dict[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)

    def add(self, name: str, ip: str, port: int, zone: str = "", verdict: str = "") -> None:
        """A server. name: what AWS calls it. verdict: what it says of its health, "" if nothing bad.

        Raises ValueError for what is no IP address.
        """
        address = Address(str(ip_address(ip)), port)
        shown = str(address) if name == ip else f"{name}:{port}/{ip}"
        self.found.append(Found(address, shown, zone=zone))
        if verdict:
            self.says[str(address)] = verdict
