from __future__ import annotations

import json

import pytest

from lbproxy.control.discovery.kubernetes.slices import Malformed
from lbproxy.control.discovery.kubernetes.zone import node_path, zone_of
from tests.support.kubernetes_objects import node


def test_a_node_says_its_zone() -> None:
    assert node_path("ip-10-0-0-1.eu.internal") == "/api/v1/nodes/ip-10-0-0-1.eu.internal"
    assert zone_of(200, json.dumps(node("n", "eu-1b")).encode(), "n") == "eu-1b"


@pytest.mark.parametrize("name", ["a/b", "A", "..", "-a", "a" * 254, "a\n", "a?b"])
def test_what_is_no_name_becomes_no_part_of_a_url(name: str) -> None:
    with pytest.raises(Malformed, match="is no name of a node"):
        node_path(name)


def test_a_pod_that_does_not_know_its_node_is_told_how() -> None:
    with pytest.raises(Malformed, match=r"\$NODE_NAME does not say on which node this is \(fieldRef: spec.nodeName\)"):
        node_path("")


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (403, b"{}", "the API server said 403: grant `get` on nodes"),
        (404, b"", "the API server said 404 of the node n"),
        (200, json.dumps(node("n")).encode(), "the node n has no label topology.kubernetes.io/zone"),
        (200, b'{"metadata": {"labels": {"topology.kubernetes.io/zone": 1}}}', "has no label"),
        (200, b'{"metadata": null}', "has no label"),
        (200, b"[]", "has no label"),
        (200, b"<html>", "has no label"),
        (200, b"[" * 100_000, "has no label"),
    ],
)
def test_what_says_no_zone(status: int, body: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        zone_of(status, body, "n")
