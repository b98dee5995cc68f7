"""Folders that do not tell small letters from capitals: a file `X.las` there is the file `x.las`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pointcloud.errors import PointloomError
from pointcloud.storage import files


def ignores_case(uri: str) -> bool:
    """Whether a folder, or what it will be made in, ignores the case of names; nothing is written to find out.

    Buckets tell the names apart. So does a folder of this machine whose path has no letter, as is assumed.
    """
    if not files.is_local(uri):
        return False
    folder = Path(files.resolve(uri)[1]).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    device = folder.stat().st_dev
    # The name of each folder lies in the one above, of the same disk.
    while folder != folder.parent and folder.parent.stat().st_dev == device:
        other = folder.with_name(folder.name.swapcase())
        if other.name != folder.name:
            return other.exists() and os.path.samefile(folder, other)
        folder = folder.parent
    return False


def check_case(names: Iterable[str], uri: str) -> None:
    """Check that the outputs of scans can lie side by side in a folder.

    Raises:
        PointloomError: two names differ in case alone, and the folder ignores it.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(name.casefold(), name)
        if other != name and ignores_case(uri):
            raise PointloomError(
                f"the names of the scans {other!r} and {name!r} differ in small and capital letters alone, which "
                f"{uri!r} does not tell apart: one would overwrite the other; rename one, or give another out folder."
            )
