"""CPUs that may be used: the smaller of affinity and the quota of control groups, v1 and v2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.runtime.cpus import cpu_quota, usable_cpus

V1 = "/sys/fs/cgroup/cpu"


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"/proc/self/cgroup": groups, **files}.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/job/step", {"/sys/fs/cgroup/job/step/cpu.max": "50000 50000"}, 1.0),
        # A group may use no more than the groups it lies in.
        (
            "0::/job/step",
            {"/sys/fs/cgroup/job/cpu.max": "200000 100000", "/sys/fs/cgroup/job/step/cpu.max": "max 100000"},
            2.0,
        ),
        # A container that sees its host's path, and has only its own group mounted.
        ("0::/docker/4f1a", {"/sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        ("4:memory:/\n2:cpu,cpuacct:/docker/4f1a", v1(V1, 250_000), 2.5),
        ("2:cpu,cpuacct:/", v1("/sys/fs/cgroup/cpu,cpuacct", 100_000, 50_000), 2.0),
        ("1:cpu:/job", v1(V1, -1) | v1(f"{V1}/job", 100_000), 1.0),
        ("1:cpu:/", v1(V1, -1), None),
        ("1:cpuset:/\n3:cpuacct:/", v1(V1, 100_000), None),
        # Both versions at once: v1 limits CPUs, v2 only keeps names.
        ("1:cpu:/\n0::/user", v1(V1, 400_000) | {"/sys/fs/cgroup/unified/user/cgroup.procs": "1"}, 4.0),
        ("0::/", {"/sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ("0::/", {}, None),
    ],
)
def test_the_quota_of_control_groups(
    groups: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(system(tmp_path, groups, files)) == quota


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [(8, "max 100000", 8), (8, "350000 100000", 3), (2, "400000 100000", 2), (8, "50000 100000", 1)],
)
def test_the_smaller_of_affinity_and_quota_counts(
    affinity: int, limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    system(tmp_path, "0::/", {"/sys/fs/cgroup/cpu.max": limit})
    assert usable_cpus(tmp_path) == expected
