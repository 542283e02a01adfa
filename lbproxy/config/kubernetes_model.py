"""The model of `discovery.kubernetes`: a service whose endpoints are the servers of a pool."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from lbproxy.config.notation import FILE, FLAG, SECONDS, TEXT, Notation, Section, setting
from lbproxy.config.units import parse_text, shown

AUTO: Final = "auto"
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"  # RFC 1123
_LABEL_RE: Final = re.compile(_LABEL)
_ZONE: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"  # what a label's value may be
_ZONE_RE: Final = re.compile(_ZONE)


def parse_object_name(value: object) -> str:
    """The name of a service or a namespace."""
    text = parse_text(value)
    if not _LABEL_RE.fullmatch(text):
        raise ValueError(
            f"expected a name as Kubernetes has them, 1 to 63 small letters, digits and `-`, got {shown(value)}"
        )
    return text


def parse_service_port(value: object) -> int | str:
    """The name of a port, or its number at the pods."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise ValueError(f"expected the name of a port, or a number from 1 to 65535, got {shown(value)}")
        return int(value)
    text = parse_text(value)
    if text.isdigit():
        raise ValueError(f"a number is written without quotes, got {shown(value)}")
    if not _LABEL_RE.fullmatch(text):
        raise ValueError(f"expected the name of a port, as the service has it, or a number, got {shown(value)}")
    return text


def parse_zone_label(value: object) -> str:
    """`auto`, or what nodes have as their zone."""
    text = parse_text(value)
    if not _ZONE_RE.fullmatch(text):
        raise ValueError(f"expected auto or a zone as the label topology.kubernetes.io/zone has it, got {shown(value)}")
    return text


OBJECT_NAME: Final = Notation("name", parse_object_name, {"type": ["string", "number"], "pattern": f"^{_LABEL}$"})
SERVICE_PORT: Final = Notation(
    "name or number of a port",
    parse_service_port,
    {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": f"^{_LABEL}$"}]},
)
ZONE_LABEL: Final = Notation(
    "`auto` or a zone", parse_zone_label, {"type": ["string", "number"], "pattern": f"^{_ZONE}$"}
)


class Kubernetes(Section):
    service: Annotated[str, OBJECT_NAME] = setting(
        ..., "The service whose ready endpoints are the servers. A headless one (`clusterIP: None`) will do."
    )
    namespace: Annotated[str, OBJECT_NAME] = setting(
        AUTO, "Where the service is. `auto`: where lbproxy's pod is, or what the kubeconfig's context says."
    )
    port: Annotated[int | str | None, SERVICE_PORT.or_unset()] = setting(
        None,
        "The service's name of the port, or the number that the pods listen on. Not needed where the service has one "
        "TCP port.",
    )
    family: Literal["auto", "ipv4", "ipv6"] = setting(
        "auto", "Of a service of both families, which addresses are used. `auto`: IPv4 where there are some."
    )
    interval: Annotated[float, SECONDS] = setting(
        "1m",
        "How long one watch lasts before it is asked for again. Changes come at once; this says how soon a connection "
        "that died in silence is noticed.",
    )
    prefer_zone: Annotated[bool, FLAG] = setting(
        False,
        "Use endpoints of the own zone only, as long as at least half of those are usable and one has room; else those "
        "of all zones. Hints of the service (`hints.forZones`) say which endpoints are for which zone.",
    )
    zone: Annotated[str, ZONE_LABEL] = setting(
        AUTO,
        "The own zone, as the label `topology.kubernetes.io/zone` of nodes has it. `auto`: that of the node that "
        "`$NODE_NAME` names, which the API server is asked for (right: `get` on nodes).",
    )
    kubeconfig: Annotated[str | None, FILE.or_unset()] = setting(
        None,
        "A kubeconfig with a token or a client certificate. Without one: `$KUBECONFIG`, else the service account of "
        "the pod, else ~/.kube/config. Relative to this file's folder.",
    )
    context: Annotated[str | None, TEXT.or_unset()] = setting(
        None, "Which context of the kubeconfig is meant, if not its `current-context`."
    )
