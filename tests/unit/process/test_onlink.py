"""Directly connected networks, from the kernel's tables as they look."""

from __future__ import annotations

from ipaddress import ip_network

from lbproxy.process.onlink import on_link_networks

# A machine on 10.1.2.0/24 whose gateway is 10.1.2.1, with a bridge 172.17.0.0/16 and a host route through the gateway.
IPV4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102010A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0909090A\t0102010A\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""
ZERO = "0" * 32
IPV6 = f"""\
fe800000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
20010db8000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
20010db8000100000000000000000000 40 {ZERO} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0
{ZERO} 00 {ZERO} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""


def test_networks_without_a_gateway_are_on_link() -> None:
    assert on_link_networks(IPV4, "") == (ip_network("10.1.2.0/24"), ip_network("172.17.0.0/16"))
    assert on_link_networks("", IPV6) == (ip_network("fe80::/64"), ip_network("2001:db8::/64"))
    assert len(on_link_networks(IPV4, IPV6)) == 4


def test_a_default_route_without_a_gateway_makes_nothing_on_link() -> None:
    """A point-to-point link (a VPN) can have one, and then everything would be."""
    line = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0"
    assert on_link_networks("header\n" + line, f"{ZERO} 00 {ZERO} 00 {ZERO} 00000400") == ()


def test_nothing_is_on_link_where_the_tables_are_missing_or_short() -> None:
    assert on_link_networks("", "") == ()
    assert on_link_networks("header\neth0 00000000", "fe80 40") == ()
