"""The objects in simulated rooms: coloured patches, boxes made of patches, furniture made of boxes.

Lengths are metres, colours (red, green, blue) from 0 to 255. An object is an array (n, 6) of points:
x y z r g b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Triple = tuple[float, float, float]

_WOOD, _STEEL, _BLACK = (176.0, 128.0, 82.0), (150.0, 152.0, 156.0), (42.0, 42.0, 46.0)
_NOISE_M = 0.004  # what a structured-light scanner leaves on a flat wall


@dataclass(frozen=True)
class Scanner:
    """Samples surfaces with `points_per_m2`, drawing from `rng`, which it advances."""

    rng: np.random.Generator
    points_per_m2: float

    def patch(
        self,
        corner: Triple,
        u: Triple,
        v: Triple,
        colour: Triple,
        openings: tuple[tuple[float, float, float, float], ...] = (),
    ) -> np.ndarray:
        """Points (n, 6) on the parallelogram corner + s·u + t·v, s and t in [0, 1].

        Args:
            openings: (s0, t0, s1, t1) in metres along u and v: rectangles without points.
        """
        a, b = np.array(u), np.array(v)
        lengths = np.array([np.linalg.norm(a), np.linalg.norm(b)])
        count = max(4, round(float(np.linalg.norm(np.cross(a, b))) * self.points_per_m2))
        st = self.rng.random((count, 2))
        for s0, t0, s1, t1 in openings:
            s, t = (st * lengths).T
            st = st[~((s > s0) & (s < s1) & (t > t0) & (t < t1))]
        xyz = np.array(corner) + st[:, :1] * a + st[:, 1:] * b
        xyz += self.rng.normal(0, _NOISE_M, xyz.shape)
        # Light comes from above: level patches are brighter than upright ones.
        shade = 1.0 if abs(a[2]) + abs(b[2]) < 1e-9 else 0.88
        grain = self.rng.normal(0, 5, (len(st), 1)) + self.rng.normal(0, 2, (len(st), 3))
        rgb = np.array(colour) * shade + grain
        return np.hstack([xyz, np.clip(np.rint(rgb), 0, 255)])

    def box(self, centre: Triple, size: Triple, colour: Triple, turn: float = 0.0) -> np.ndarray:
        """Points (n, 6) on the sides and the top of a box, turned about its upright axis (radians)."""
        w, d, h = size
        low = (-w / 2, -d / 2, -h / 2)
        sides = [
            self.patch((low[0], low[1], h / 2), (w, 0, 0), (0, d, 0), colour),
            self.patch(low, (w, 0, 0), (0, 0, h), colour),
            self.patch((low[0], d / 2, low[2]), (w, 0, 0), (0, 0, h), colour),
            self.patch(low, (0, d, 0), (0, 0, h), colour),
            self.patch((w / 2, low[1], low[2]), (0, d, 0), (0, 0, h), colour),
        ]
        return _placed(np.vstack(sides), centre, turn)

    def table(self, centre: tuple[float, float], size: tuple[float, float], turn: float = 0.0) -> np.ndarray:
        """A table 0.74 m high with four legs."""
        w, d = size
        parts = [self.box((0, 0, 0.72), (w, d, 0.04), _WOOD)]
        for x in (-w / 2 + 0.06, w / 2 - 0.06):
            parts += [
                self.box((x, y, 0.35), (0.05, 0.05, 0.7), _STEEL) for y in (-d / 2 + 0.06, d / 2 - 0.06)
            ]
        return _placed(np.vstack(parts), (*centre, 0.0), turn)

    def chair(self, centre: tuple[float, float], turn: float = 0.0) -> np.ndarray:
        """A chair that looks towards +y before it is turned."""
        colour = ((44.0, 60.0, 110.0), (120.0, 36.0, 40.0), _BLACK)[int(self.rng.integers(3))]
        parts = [
            self.box((0, 0, 0.44), (0.44, 0.44, 0.06), colour),
            self.box((0, -0.2, 0.7), (0.42, 0.05, 0.45), colour),
        ]
        for x in (-0.19, 0.19):
            parts += [self.box((x, y, 0.2), (0.03, 0.03, 0.4), _STEEL) for y in (-0.19, 0.19)]
        return _placed(np.vstack(parts), (*centre, 0.0), turn)

    def sofa(self, centre: tuple[float, float], turn: float = 0.0) -> np.ndarray:
        """A sofa 1.9 m wide that looks towards +y before it is turned."""
        colour = (118.0, 106.0, 96.0)
        parts = [
            self.box((0, 0.05, 0.22), (1.6, 0.75, 0.4), colour),
            self.box((0, -0.35, 0.42), (1.9, 0.18, 0.82), colour),
            self.box((-0.87, 0.05, 0.3), (0.15, 0.8, 0.6), colour),
            self.box((0.87, 0.05, 0.3), (0.15, 0.8, 0.6), colour),
        ]
        return _placed(np.vstack(parts), (*centre, 0.0), turn)

    def bookcase(self, centre: tuple[float, float], turn: float = 0.0) -> np.ndarray:
        """A case 1.2 m wide and 2 m high, open towards +y before it is turned, with rows of books."""
        parts = [
            self.box((0, -0.15, 1.0), (1.2, 0.02, 2.0), _WOOD),
            self.box((-0.6, 0, 1.0), (0.03, 0.32, 2.0), _WOOD),
            self.box((0.6, 0, 1.0), (0.03, 0.32, 2.0), _WOOD),
        ]
        for shelf in np.linspace(0.05, 1.95, 6):
            parts.append(self.box((0, 0, float(shelf)), (1.2, 0.32, 0.03), _WOOD))
            if shelf < 1.9:
                x = -0.56
                while x < 0.4:
                    width, height = self.rng.uniform(0.06, 0.2), self.rng.uniform(0.2, 0.3)
                    red, green, blue = (float(c) for c in self.rng.uniform(40, 220, 3))
                    place = (float(x + width / 2), -0.02, float(shelf + 0.015 + height / 2))
                    parts.append(self.box(place, (float(width), 0.22, float(height)), (red, green, blue)))
                    x += width + 0.01
        return _placed(np.vstack(parts), (*centre, 0.0), turn)

    def screen(self, centre: tuple[float, float], turn: float = 0.0) -> np.ndarray:
        """A monitor on a table, facing +y before it is turned: clutter in S3DIS."""
        parts = [
            self.box((0, 0, 1.06), (0.52, 0.04, 0.32), _BLACK),
            self.box((0, -0.03, 0.82), (0.06, 0.06, 0.16), _BLACK),
            self.box((0, -0.03, 0.75), (0.22, 0.16, 0.02), _BLACK),
        ]
        return _placed(np.vstack(parts), (*centre, 0.0), turn)


def _placed(points: np.ndarray, centre: Triple, turn: float) -> np.ndarray:
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = points[:, 0].copy(), points[:, 1].copy()
    points[:, 0], points[:, 1] = cos * x - sin * y, sin * x + cos * y
    points[:, :3] += centre
    return points
