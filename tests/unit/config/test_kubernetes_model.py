from __future__ import annotations

import pytest
from pydantic import ValidationError

from lbproxy.config.discovery_model import Discovery
from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.config.units import TypedInt


def test_a_service_is_enough() -> None:
    made = Discovery.model_validate({"kubernetes": {"service": "predict"}}).kubernetes
    assert made == Kubernetes(service="predict")
    assert (made.namespace, made.port, made.family, made.interval) == ("auto", None, "auto", 60.0)
    assert (made.kubeconfig, made.context) == (None, None)


@pytest.mark.parametrize(("given", "port"), [("http", "http"), (8080, 8080), (TypedInt(8080, "8080"), 8080)])
def test_a_port_is_a_name_or_a_number(given: object, port: object) -> None:
    assert Kubernetes.model_validate({"service": "a", "port": given}).port == port


@pytest.mark.parametrize("name", ["a", "a-b", "1a", "a" * 63])
def test_names_are_those_of_kubernetes(name: str) -> None:
    assert Kubernetes(service=name, namespace=name).service == name


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a-", "a" * 64, "a/b", "a\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    """It becomes part of a URL."""
    for key in ("service", "namespace"):
        with pytest.raises(ValidationError, match="expected a name as Kubernetes has them"):
            Kubernetes.model_validate({"service": "a", key: name})


@pytest.mark.parametrize("port", [0, 65536, True, "80", "A", "", 1.5, []])
def test_what_is_no_port_is_refused(port: object) -> None:
    with pytest.raises(ValidationError):
        Kubernetes.model_validate({"service": "a", "port": port})


@pytest.mark.parametrize("zone", ["eu-central-1a", "A_b.c", "1", "a" * 63])
def test_zones_are_values_of_a_label(zone: str) -> None:
    assert Kubernetes(service="a", prefer_zone=True, zone=zone).zone == zone


@pytest.mark.parametrize("zone", ["", "-a", "a b", "a" * 64, "a\n"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="expected auto or a zone"):
        Kubernetes.model_validate({"service": "a", "zone": zone})
