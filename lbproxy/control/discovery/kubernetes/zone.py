"""The zone in which this process runs, as the labels of its node say. No I/O.

A pod does not know its zone: only its node does, and which that is a pod knows by the downward API (`spec.nodeName`).
"""

from __future__ import annotations

import json
import re
from typing import Final

from lbproxy.control.discovery.kubernetes.slices import Malformed

NODE_NAME: Final = "NODE_NAME"
"""The environment variable that says which node this is."""
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123, as names of nodes are


def node_path(node: str) -> str:
    """Where the API has this node. Raises Malformed, with words for the user."""
    if not node:
        raise Malformed(f"${NODE_NAME} does not say on which node this is (fieldRef: spec.nodeName)")
    if not _NAME.fullmatch(node):
        raise Malformed(f"${NODE_NAME} is no name of a node: {node[:40]!r}")
    return f"/api/v1/nodes/{node}"


def zone_of(status: int, body: bytes, node: str) -> str:
    """The zone in an answer about a node. Raises Malformed, with words for the user."""
    if status == 403:
        raise Malformed("the API server said 403: grant `get` on nodes")
    if status != 200:
        raise Malformed(f"the API server said {status} of the node {node}")
    try:
        labels = json.loads(body)["metadata"]["labels"]
        zone = labels[ZONE_LABEL]
    except (ValueError, RecursionError, LookupError, TypeError):
        zone = None
    if not isinstance(zone, str) or not zone:
        raise Malformed(f"the node {node} has no label {ZONE_LABEL}")
    return zone
