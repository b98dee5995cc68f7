"""Numbers as people read them: with their unit, their plural, and no more digits than they are worth."""

from __future__ import annotations


def grouped(number: int) -> str:
    """The number with narrow no-break spaces between the thousands, as SI writes it."""
    return f"{number:,}".replace(",", "\u202f")


def per_cent(share: float | None) -> str:
    """One decimal, or a dash where the share is undefined. Never rounds up to 100 or down to 0."""
    if share is None:
        return "–"
    percent = 100 * share
    if 0 < percent < 0.05:
        return "<\u202f0.1\u202f%"
    if 99.95 <= percent < 100:
        return ">\u202f99.9\u202f%"
    return f"{percent:.1f}\u202f%"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: 1 scan, 2 scans."""
    return f"{grouped(number)} {one if number == 1 else many}"
