"""EndpointSlices and what else the Kubernetes API says, as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Sequence

Json = dict[str, object]
HTTP: Json = {"name": "http", "port": 8080, "protocol": "TCP"}


def endpoint(
    ip: str,
    *,
    pod: str = "",
    ready: bool = True,
    terminating: bool = False,
    zone: str = "eu-1a",
    for_zones: Sequence[str] = (),
) -> Json:
    """pod: its name, "" for an endpoint that is none. terminating: and so not ready, as the API has it. for_zones: what
    hints say, if they say anything."""
    target: Json = (
        {"targetRef": {"kind": "Pod", "name": pod, "namespace": "default", "uid": f"uid-{pod}"}} if pod else {}
    )
    conditions = {"ready": ready and not terminating, "serving": ready, "terminating": terminating}
    hints: Json = {"hints": {"forZones": [{"name": name} for name in for_zones]}} if for_zones else {}
    return {"addresses": [ip], "conditions": conditions, "nodeName": "node-1", "zone": zone, **target, **hints}


def endpoint_slice(
    name: str, *endpoints: Json, ports: Sequence[object] | None = (HTTP,), family: str = "IPv4", version: str = "1"
) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": None if ports is None else list(ports),
    }


def node(name: str, zone: str = "") -> Json:
    labels = {"kubernetes.io/hostname": name, **({"topology.kubernetes.io/zone": zone} if zone else {})}
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}


def page(version: str, *items: Json, more: str = "") -> bytes:
    metadata = {"resourceVersion": version, **({"continue": more} if more else {})}
    return json.dumps({"kind": "EndpointSliceList", "metadata": metadata, "items": list(items)}).encode()


def event(kind: str, item: Json) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": item}).encode()


def bookmark(version: str) -> bytes:
    return event("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": version}})


def status(code: int, message: str) -> Json:
    """How the API says no."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
