from __future__ import annotations

import pytest

from lbproxy.control.discovery.kubernetes.slices import Malformed, View, read_slice, servers
from lbproxy.control.discovery.source import Trouble
from tests.support.kubernetes_objects import HTTP, endpoint, endpoint_slice


def view(*slices: dict[str, object], port: int | str | None = None, family: str = "auto") -> View:
    return servers([read_slice(item) for item in slices], port, family)


def addresses(made: View) -> list[str]:
    assert not isinstance(made.answer, Trouble), made.answer
    return [str(found.address) for found in made.answer]


def test_a_ready_endpoint_is_a_server_named_by_its_pod_and_address() -> None:
    made = view(endpoint_slice("s", endpoint("10.0.0.2", pod="predict-b"), endpoint("10.0.0.1", pod="predict-a")))
    assert not isinstance(made.answer, Trouble)
    assert [(item.name, str(item.address), item.weight, item.host, item.zone) for item in made.answer] == [
        ("predict-a/10.0.0.1", "10.0.0.1:8080", 1, "", "eu-1a"),
        ("predict-b/10.0.0.2", "10.0.0.2:8080", 1, "", "eu-1a"),
    ]
    assert (made.going, made.lacking) == (frozenset(), "")


def test_what_is_no_pod_is_named_by_its_address() -> None:
    made = view(
        endpoint_slice("s", {"addresses": ["10.0.0.1"]}, endpoint("10.0.0.2", pod="Not a pod's name\n")),
    )
    assert not isinstance(made.answer, Trouble)
    assert [item.name for item in made.answer] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert [item.zone for item in made.answer] == ["", "eu-1a"]


@pytest.mark.parametrize(
    ("conditions", "is_server", "is_going"),
    [
        ({}, True, False),
        ({"ready": None}, True, False),
        ({"ready": True, "serving": True, "terminating": False}, True, False),
        ({"ready": False}, False, False),
        ({"ready": False, "serving": True}, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"ready": False, "serving": False, "terminating": True}, False, True),
        ({"ready": True, "serving": True, "terminating": True}, False, True),  # publishNotReadyAddresses
    ],
)
def test_conditions(conditions: dict[str, object], is_server: bool, is_going: bool) -> None:
    made = view(endpoint_slice("s", {"addresses": ["10.0.0.1"], "conditions": conditions}))
    assert addresses(made) == (["10.0.0.1:8080"] if is_server else [])
    assert made.going == ({"10.0.0.1:8080"} if is_going else set())


def test_all_slices_of_a_service_count_each_with_its_own_port() -> None:
    one = endpoint_slice("s1", endpoint("10.0.0.1"), ports=[{"name": "http", "port": 8080}])
    other = endpoint_slice("s2", endpoint("10.0.0.2"), ports=[{"name": "http", "port": 9090}])
    assert addresses(view(one, other, port="http")) == ["10.0.0.1:8080", "10.0.0.2:9090"]


def test_an_address_in_two_slices_is_what_the_later_one_says() -> None:
    ready = endpoint_slice("s1", endpoint("10.0.0.1"))
    going = endpoint_slice("s2", endpoint("10.0.0.1", terminating=True))
    assert addresses(view(ready, going)) == []
    assert addresses(view(going, ready)) == ["10.0.0.1:8080"]


def test_a_pod_of_two_families_is_one_server() -> None:
    v4 = endpoint_slice("v4", endpoint("10.0.0.1", pod="a"))
    v6 = endpoint_slice("v6", endpoint("fd00::1", pod="a"), family="IPv6")
    assert addresses(view(v6, v4)) == ["10.0.0.1:8080"]
    assert addresses(view(v6, v4, family="ipv4")) == ["10.0.0.1:8080"]
    assert addresses(view(v6, v4, family="ipv6")) == ["[fd00::1]:8080"]
    assert addresses(view(v6)) == ["[fd00::1]:8080"]
    assert addresses(view(v6, endpoint_slice("v4", ports=None))) == ["[fd00::1]:8080"], "an empty slice is no family"
    gone = endpoint_slice("v4", endpoint("10.0.0.1", ready=False))
    assert addresses(view(v6, gone)) == [], "a pod that is not ready does not change its family"


def test_a_family_that_is_not_there_is_told() -> None:
    made = view(endpoint_slice("v6", endpoint("fd00::1"), family="IPv6"), family="ipv4")
    assert (addresses(made), made.lacking) == ([], "its endpoints are of IPv6; say so with `family`")
    made = view(endpoint_slice("f", {"addresses": ["a.org"]}, family="FQDN"))
    assert (addresses(made), made.lacking) == ([], ""), "what has no address at all is nothing"


HTTPS = {"name": "https", "port": 8443, "protocol": "TCP"}
SYSLOG = {"name": "syslog", "port": 514, "protocol": "UDP"}


@pytest.mark.parametrize(
    ("ports", "port", "chosen"),
    [
        ([HTTP], None, 8080),
        ([HTTP], "http", 8080),
        ([HTTP], 8080, 8080),
        ([HTTP, HTTPS], "https", 8443),
        ([HTTP, HTTPS], 8443, 8443),
        ([HTTP, SYSLOG], None, 8080),
        ([{"port": 8080}], None, 8080),
        ([{"name": "", "port": 8080}], None, 8080),
        ([{"name": "any"}], 5001, 5001),
        ([], 5001, 5001),
        (None, 5001, 5001),
    ],
)
def test_the_port_is_chosen_by_name_or_number(ports: list[object] | None, port: int | str | None, chosen: int) -> None:
    assert addresses(view(endpoint_slice("s", endpoint("10.0.0.1"), ports=ports), port=port)) == [f"10.0.0.1:{chosen}"]


@pytest.mark.parametrize(
    ("ports", "port", "why"),
    [
        (
            [HTTP, HTTPS],
            None,
            "its endpoints have several TCP ports: http (8080), https (8443); say which with `port`",
        ),
        ([HTTP], "grpc", "its endpoints have no TCP port named grpc; they have: http (8080)"),
        ([HTTP], 5001, "its endpoints have no TCP port 5001; they have: http (8080)"),
        ([SYSLOG], "syslog", "its endpoints have no TCP port named syslog; they have: none"),
        ([], None, "its endpoints have no TCP port; give a number with `port`"),
        ([{"name": "any"}], "any", "its endpoints have any port; give a number with `port`"),
        ([{"port": 70000}], None, "its endpoints have no TCP port; give a number with `port`"),
    ],
)
def test_a_port_that_is_not_there_is_no_answer(ports: list[object], port: int | str | None, why: str) -> None:
    """So that a service whose port was renamed keeps its servers."""
    assert view(endpoint_slice("s", endpoint("10.0.0.1"), ports=ports), port=port).answer == Trouble(why)


def test_a_port_that_some_pods_have_is_an_answer_with_a_flaw() -> None:
    old = endpoint_slice("s1", endpoint("10.0.0.1"), ports=[HTTPS])
    made = view(old, endpoint_slice("s2", endpoint("10.0.0.2")), port="http")
    assert addresses(made) == ["10.0.0.2:8080"]
    assert made.lacking == "its endpoints have no TCP port named http; they have: https (8443)"


def test_a_slice_without_endpoints_needs_no_port() -> None:
    assert view(endpoint_slice("s", ports=None), port="http") == View([])


@pytest.mark.parametrize(
    "item", [{"addresses": []}, {"addresses": ["a.org"]}, {"addresses": [5]}, {}, {"addresses": ["fd00::1"]}]
)
def test_what_has_no_address_of_its_family_is_left_out(item: dict[str, object]) -> None:
    assert addresses(view(endpoint_slice("s", item, endpoint("10.0.0.2")))) == ["10.0.0.2:8080"]


def test_of_several_addresses_the_first_counts() -> None:
    assert addresses(view(endpoint_slice("s", {"addresses": ["10.0.0.1", "10.0.0.9"]}))) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"metadata": None},
        {"metadata": {"name": "s"}},
        {"metadata": {"name": "", "resourceVersion": "1"}},
        {"addressType": None},
        {"endpoints": {}},
        {"endpoints": [1]},
        {"ports": "http"},
        {"ports": [1]},
    ],
)
def test_what_is_no_slice_is_refused(spoilt: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        read_slice({**endpoint_slice("s", endpoint("10.0.0.1")), **spoilt})
    with pytest.raises(Malformed):
        read_slice([])


# --- zones ------------------------------------------------------------------------------------------------------------


def far(zone: str, *endpoints: dict[str, object]) -> str:
    """The last part of the addresses of those that are not of this zone."""
    made = servers([read_slice(endpoint_slice("s", *endpoints))], None, "auto", zone)
    assert not isinstance(made.answer, Trouble)
    return "".join(found.address.host[-1] for found in made.answer if found.far)


def placed(number: int, zone: str, *for_zones: str, **conditions: bool) -> dict[str, object]:
    return endpoint(f"10.0.0.{number}", zone=zone, for_zones=for_zones, **conditions)  # type: ignore[arg-type]


def test_without_hints_an_endpoint_is_of_its_own_zone() -> None:
    three = placed(1, "a"), placed(2, "b"), placed(3, "")
    assert far("a", *three) == "2"
    assert far("b", *three) == "1"
    assert far("", *three) == ""
    assert far("c", *three) == "12", "that nobody is near is the pool's affair"


def test_hints_say_for_which_zones_an_endpoint_is() -> None:
    assert far("a", placed(1, "a", "a"), placed(2, "b", "a", "b"), placed(3, "a", "b")) == "3"
    assert far("a", placed(1, "a"), placed(2, "b", "a"), placed(3, "b")) == "3", "one without hints is of its own zone"


def test_hints_that_leave_the_own_zone_out_do_not_count() -> None:
    assert far("a", placed(1, "a", "b"), placed(2, "b", "b")) == "2"
    assert far("a", placed(1, "a", "b"), placed(2, "b", "a", ready=False)) == "", "nor who is no server"
    assert far("a", placed(1, "a", "b"), placed(2, "b", "a", terminating=True)) == ""


@pytest.mark.parametrize(
    "hints", [None, [], "a", {"forZones": None}, {"forZones": "a"}, {"forZones": [None, 1, {"name": 1}, {}]}]
)
def test_hints_that_are_not_understood_are_none(hints: object) -> None:
    assert far("a", {**placed(1, "b"), "hints": hints}) == "1"


def test_so_many_hints_as_the_api_allows() -> None:
    assert far("z", placed(1, "b", *"abcdefgz")) == ""
    assert far("z", placed(1, "b", *"abcdefghz")) == "1"
