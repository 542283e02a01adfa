"""Who listens on a port, from a /proc of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.doctor.processes import workers

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def make(
    proc: Path,
    sockets: Mapping[int, tuple[str, int]],
    processes: Mapping[int, tuple[int, Sequence[int]]],
    bound: str = "0100007F",
) -> None:
    """sockets: inode -> state and port. processes: pid -> parent and inodes. bound: the address of all sockets."""
    (proc / "net").mkdir()
    rows = [
        f"   0: {bound}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000  0 {inode} 1\n"
        for inode, (state, port) in sockets.items()
    ]
    (proc / "net/tcp").write_text(HEAD + "".join(rows))
    for pid, (parent, inodes) in processes.items():
        (proc / f"{pid}/fd").mkdir(parents=True)
        (proc / f"{pid}/stat").write_text(f"{pid} (a) b) S {parent} 1 1")
        for number, inode in enumerate(inodes):
            (proc / f"{pid}/fd/{number}").symlink_to(f"socket:[{inode}]")


AT = Address("127.0.0.1", 5001)


def test_a_supervisor_is_no_worker(tmp_path: Path) -> None:
    make(tmp_path, {7: ("0A", 5001)}, {100: (1, [7]), 101: (100, [7, 8]), 102: (100, [7]), 103: (100, [8])})
    assert workers([AT], tmp_path) == {AT: (101, 102)}


def test_a_process_by_itself_is_one(tmp_path: Path) -> None:
    make(tmp_path, {7: ("0A", 5001), 8: ("0A", 5002)}, {100: (1, [7]), 200: (1, [8])})
    other = Address("127.0.0.1", 5002)
    assert workers([AT], tmp_path) == {AT: (100,)}
    assert workers([AT, other], tmp_path) == {AT: (100,), other: (200,)}


def test_sockets_of_a_port_may_be_several(tmp_path: Path) -> None:
    make(tmp_path, {7: ("0A", 5001), 8: ("0A", 5001)}, {100: (1, [7]), 200: (1, [8])})
    assert workers([AT], tmp_path) == {AT: (100, 200)}


def test_connections_are_not_counted(tmp_path: Path) -> None:
    make(tmp_path, {7: ("01", 5001)}, {100: (1, [7])})
    assert workers([AT], tmp_path) == {}


def test_what_may_not_be_seen_is_not_known(tmp_path: Path) -> None:
    assert workers([AT], tmp_path / "none") == {}
    make(tmp_path, {7: ("0A", 5001)}, {})
    (tmp_path / "100").mkdir()
    assert workers([AT], tmp_path) == {}


@pytest.mark.parametrize("address", ["10.0.0.7:5001", "unix:/run/app.sock", "model.example:5001"])
def test_only_this_machine_is_looked_at(address: str, tmp_path: Path) -> None:
    make(tmp_path, {7: ("0A", 5001)}, {100: (1, [7])})
    assert workers([parse_address(address), AT], tmp_path) == {AT: (100,)}


V6_LOOPBACK, V6_ANY, V4_MAPPED = "00000000" * 3 + "01000000", "0" * 32, "0000000000000000FFFF00000100007F"


@pytest.mark.skipif(sys.byteorder != "little", reason="the addresses are written as such a machine has them")
@pytest.mark.parametrize(
    ("bound", "asked", "is_it"),
    [
        ("0100007F", "127.0.0.1:5001", True),
        ("0200007F", "127.0.0.1:5001", False),
        ("00000000", "127.0.0.1:5001", True),
        (V6_ANY, "127.0.0.1:5001", True),
        (V4_MAPPED, "127.0.0.1:5001", True),
        (V6_LOOPBACK, "127.0.0.1:5001", False),
        (V6_LOOPBACK, "[::1]:5001", True),
        (V6_ANY, "[::1]:5001", True),
        ("00000000", "[::1]:5001", False),
    ],
)
def test_the_same_port_of_another_address_is_another_server(
    bound: str, asked: str, is_it: bool, tmp_path: Path
) -> None:
    make(tmp_path, {7: ("0A", 5001)}, {100: (1, [7])}, bound)
    address = parse_address(asked)
    assert workers([address], tmp_path) == ({address: (100,)} if is_it else {})


@pytest.mark.skipif(sys.byteorder != "little", reason="as above")
def test_who_is_bound_to_the_address_itself_gets_its_connections(tmp_path: Path) -> None:
    make(tmp_path, {7: ("0A", 5001)}, {100: (1, [7]), 200: (1, [8])})
    row = f"   0: 00000000:{5001:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 8 1\n"
    (tmp_path / "net/tcp").write_text((tmp_path / "net/tcp").read_text() + row)
    assert workers([AT], tmp_path) == {AT: (100,)}
