"""What of a status is another one than a moment ago, so that readers who have the rest are told only that.

Every change has a number, and whoever remembers the number up to which he knows everything is told what came later.
What merely passes with time is no change: how long a state has lasted, and how long ago the last answer came.
"""

from __future__ import annotations

from math import log2
from typing import Final

from lbproxy.control.status import Json

POOL_KEYS: Final = ("name", "leaving", "usable", "standby", "ready", "reason", "failing_open", "inflight", "queue")
_FAINT_S: Final = 0.0001  # latencies below this are all the same

Key = tuple[str, str]
_LIMITS: Final[Key] = ("", "rate_limits")


class Changes:
    """The last status, and when each part of it became what it is.

    number: of the latest change of a server, of a pool's own values or of what rate limits have counted. shape: of the
    latest change of what there is: pools, servers, listeners, shares of splits, what is wrong with the sources of
    servers, or what the process is doing; whoever knows an older one needs everything anew.
    """

    def __init__(self) -> None:
        self.number = 0
        self.shape = 0
        self._shown: object = None
        self._pools: list[tuple[Json, list[Json]]] = []
        self._limits: list[Json] = []
        self._seen: dict[Key, tuple[object, int]] = {}

    def take(self, status: Json) -> None:
        """This is the status now."""
        number = self.number + 1
        seen: dict[Key, tuple[object, int]] = {}
        self._pools = []
        for pool in objects(status["pools"]):
            head = {key: pool[key] for key in POOL_KEYS}
            name, servers = str(pool["name"]), objects(pool["servers"])
            self._note(seen, (name, ""), head, number)
            for server in servers:
                self._note(seen, (name, str(server["name"])), lasting(server), number)
            self._pools.append((head, servers))
        self._limits = objects(status["rate_limits"])
        self._note(seen, _LIMITS, self._limits, number)
        self._seen = seen
        shape = (
            [(item["name"], item["bind"]) for item in objects(status["listeners"])],
            [(item["listener"], item["route"], item["by"], item["pools"]) for item in objects(status["splits"])],
            list(seen),
            [
                (item["source"], item["error"])
                for pool in objects(status["pools"])
                for item in objects(pool["discovery"])
            ],
            status["state"],
            status["ready"],
        )
        if shape != self._shown:
            self._shown = shape
            self.shape += 1

    def _note(self, seen: dict[Key, tuple[object, int]], key: Key, value: object, number: int) -> None:
        before = self._seen.get(key)
        if before is not None and before[0] == value:
            seen[key] = before
        else:
            seen[key] = (value, number)
            self.number = number

    def since(self, number: int) -> Json:
        """The pools that have changed after this number, each with those of its servers that have; all rate limits if
        one has."""
        pools = []
        for head, servers in self._pools:
            name = str(head["name"])
            changed = [item for item in servers if self._seen[name, str(item["name"])][1] > number]
            if changed or self._seen[name, ""][1] > number:
                pools.append({**head, "servers": changed})
        told: Json = {"pools": pools}
        if self._seen[_LIMITS][1] > number:
            told["rate_limits"] = self._limits
        return told


def lasting(server: Json) -> Json:
    """A server as in the status, without what passes with time."""
    latency, sources = server["latency"], server.get("sources")
    assert isinstance(latency, float)
    return {
        **server,
        "since": None,
        "cut_in": server.get("cut_in") is not None,
        "latency": round(log2(latency)) if latency > _FAINT_S else None,
        "latency_age": None,
        "sources": [(item["source"], item["by"], item["given"]) for item in sources.values()]
        if isinstance(sources, dict)
        else None,
    }


def objects(value: object) -> list[Json]:
    """A list of the status."""
    assert isinstance(value, list)
    return value
