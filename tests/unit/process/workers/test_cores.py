from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.process.workers.cores import MOST, usable_cores


def v2(folder: Path, *quotas: str, path: str = "/a/b") -> tuple[Path, Path]:
    """quotas: cpu.max of /, /a and /a/b."""
    root = folder / "cgroup"
    for at, quota in zip(("", "a", "a/b"), quotas, strict=False):
        (root / at).mkdir(parents=True, exist_ok=True)
        (root / at / "cpu.max").write_text(f"{quota}\n")
    membership = folder / "self"
    membership.write_text(f"0::{path}\n")
    return membership, root


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        (("max 100000", "max 100000", "max 100000"), 8),
        (("max 100000", "max 100000", "200000 100000"), 2),
        (("max 100000", "250000 100000", "max 100000"), 3),
        (("50000 100000", "max 100000", "400000 100000"), 1),
        (("max 100000", "max 100000", "9900000 100000"), 8),
        (("words", "0 0", ""), 8),
    ],
)
def test_the_narrowest_quota_of_all_groups_counts_rounded_up(
    quotas: tuple[str, ...], cores: int, tmp_path: Path
) -> None:
    assert usable_cores(8, *v2(tmp_path, *quotas)) == cores


def test_inside_of_a_container_the_own_group_is_at_the_root(tmp_path: Path) -> None:
    assert usable_cores(8, *v2(tmp_path, "300000 100000", path="/kubepods/pod1/c1")) == 3


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("150000", 2)])
def test_the_first_version_of_cgroups_has_other_names(quota: str, cores: int, tmp_path: Path) -> None:
    folder = tmp_path / "cgroup" / "cpu,cpuacct" / "a"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    membership = tmp_path / "self"
    membership.write_text("12:pids:/a\n4:cpu,cpuacct:/a\n")
    assert usable_cores(8, membership, tmp_path / "cgroup") == cores


def test_without_cgroups_the_processors_count_and_there_is_a_bound(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert usable_cores(3, nowhere, nowhere) == 3
    assert usable_cores(5000, nowhere, nowhere) == MOST
    assert usable_cores(None, nowhere, nowhere) >= 1
