"""How many CPUs this process may use: the fewest that its affinity and the CPU quotas of its control groups leave.

Sources: cgroups(7), sched_getaffinity(2), and the kernel's documents on the CPU controllers of control groups: v1
(scheduler/sched-bwc) and v2 (admin-guide/cgroup-v2, cpu.max).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

_MOUNTS = Path("sys/fs/cgroup")


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs this process may use, at least 1; in a container or a batch job these are fewer than the machine has.

    Args:
        root: the folder in which /proc and /sys are looked for.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    # Of half a CPU more no whole thread could run: threads above the quota are stopped in every period.
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups of this process allow on average, v1 or v2; None: as many as there are.

    Args:
        root: the folder in which /proc and /sys are looked for.
    """
    quotas = [quota for folder in _folders(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _folders(root: Path) -> list[Path]:
    """The folders of this process's control groups that hold its CPU limits, with those of all groups above them.

    A container may name groups of its host, which are not mounted in it: its own is then the top of what is mounted.
    """
    folders = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0" and not controllers:  # v2, which a hybrid system mounts below v1
                mounts = [_MOUNTS, _MOUNTS / "unified"]
            elif "cpu" in controllers.split(","):
                mounts = [_MOUNTS / "cpu", _MOUNTS / controllers]
            else:
                continue
            path = PurePosixPath(group.lstrip("/"))
            folders += [root / mount / each for mount in mounts for each in (path, *path.parents)]
    return folders


def _quota_of(folder: Path) -> float | None:
    """CPUs that one control group allows; None where it sets no limit, or is not there."""
    with suppress(OSError, ValueError):  # ValueError: "max" is no number
        if (limit := folder / "cpu.max").exists():
            quota, period = (int(number) for number in limit.read_text().split())
        else:
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 and period > 0 else None
    return None
