"""Which labelled cloud belongs to which truth, delivered scan and other version: files paired by name."""

from __future__ import annotations

from dataclasses import dataclass

from pointcloud.delivery.las_copy import output_name
from pointcloud.delivery.read_back import find_clouds, stem_of
from pointcloud.errors import PointloomError
from pointcloud.storage import inputs


@dataclass(frozen=True)
class Pair:
    """One labelled cloud, its truth, the scan as it was delivered, and another version of the labels, if there is one.

    All hold the same points in the same order.
    """

    name: str
    labelled: str
    truth: str
    delivered: str
    against: str | None = None


def find_pairs(
    labelled: list[str], truth: list[str], delivered: list[str], against: list[str] | None = None
) -> tuple[Pair, ...]:
    """Pair labelled clouds with truth, and with the delivered scans and another version if given, by name.

    The format is not part of the name. Of several files with one name the one of the same format is taken.

    Raises:
        StorageError: nothing at a path.
        PointloomError: a labelled cloud without one of them, or with several.
    """
    truths = _by_stem(truth)
    befores = _by_stem(delivered) if delivered else truths
    others = _by_stem(against) if against else {}
    pairs = []
    for sources in _by_stem(labelled).values():
        if len(sources) > 1:
            raise PointloomError(
                f"{sources[0].uri!r} and {sources[1].uri!r} are both the labelled cloud of one scan; name one of them."
            )
        (source,) = sources
        pairs.append(
            Pair(
                source.name,
                source.uri,
                _partner(source, "truth", truths),
                _partner(source, "delivered scan", befores),
                _partner(source, "other version", others) if against else None,
            )
        )
    if not pairs:
        raise PointloomError(
            f"no labelled cloud among {', '.join(map(repr, labelled))}; give where they are."
        )
    return tuple(pairs)


def _by_stem(patterns: list[str]) -> dict[str, list[inputs.Source]]:
    found: dict[str, list[inputs.Source]] = {}
    for source in find_clouds(patterns):
        found.setdefault(stem_of(source.name), []).append(source)
    return found


def _partner(source: inputs.Source, what: str, among: dict[str, list[inputs.Source]]) -> str:
    """The URI of what belongs to a labelled cloud."""
    found = among.get(stem_of(source.name), [])
    if not found:
        raise PointloomError(
            f"no {what} for {source.uri!r}: expected a file named {stem_of(source.name)!r}, in any format, among "
            f"{sorted(among)[:5]}; give both the same name."
        )
    if len(found) == 1:
        return found[0].uri
    same = [other for other in found if output_name(other.name) == source.name]
    if len(same) != 1:
        raise PointloomError(
            f"{source.uri!r} has more than one {what}, {found[0].uri!r} and {found[1].uri!r}; name one of them."
        )
    return same[0].uri
