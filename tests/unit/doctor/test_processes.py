"""Who listens on a port, from a /proc of the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.doctor.processes import workers

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def make(
    proc: Path, sockets: Mapping[int, tuple[str, int]], processes: Mapping[int, tuple[int, Sequence[int]]]
) -> None:
    """sockets: inode -> state and port. processes: pid -> parent and inodes."""
    (proc / "net").mkdir()
    rows = [
        f"   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000  0 {inode} 1\n"
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
    here = parse_address("[::1]:5001")
    assert workers([parse_address(address), here], tmp_path) == {here: (100,)}
