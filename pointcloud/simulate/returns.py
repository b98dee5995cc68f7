"""From pulses to points: what each pulse meets on its way down, and the returns it gives."""

from __future__ import annotations

import numpy as np

from pointcloud.simulate import buildings, draws, landscape, powerline, vegetation
from pointcloud.simulate.flight import Flight, Strip
from pointcloud.simulate.rays import Pulses

GROUND, BUILDING, LOW_NOISE, WATER, WIRE, TOWER, HIGH_NOISE = 2, 6, 7, 9, 14, 15, 18
"""ASPRS codes (LAS 1.4 R16, table 17); vegetation's 3, 4 and 5 come from `vegetation.height_class`."""

_Layer = tuple[np.ndarray, np.ndarray, np.ndarray | int, np.ndarray | float]
"""Flat pulse index, height, code, intensity of the points of one layer."""

_RANGE_NOISE_M = 0.015
_INTENSITY = {WIRE: 5000.0, TOWER: 14000.0, LOW_NOISE: 3000.0, HIGH_NOISE: 2000.0}


def strip_points(flight: Flight, strip: Strip, noise_fraction: float) -> dict[str, np.ndarray]:
    """All returns of a strip's pulses, in order of time and, within a pulse, of return number.

    Returns:
        Arrays (P,): x, y, z float64 absolute metres, and the LAS dimensions named in
        `survey.simulate_chunks`. Every return of a pulse lies on the pulse's line and has its gps_time.
    """
    pulses = strip.pulses
    box = (float(pulses.x.min()), float(pulses.y.min()), float(pulses.x.max()), float(pulses.y.max()))
    lean = 45.0 * float(np.abs(pulses.slope).max())
    objects = landscape.objects_near(flight.terrain, box[0] - lean, box[1], box[2] + lean, box[3])

    surface, codes, intensity = _open_ground(flight, pulses, strip.water, box)
    for building in objects.buildings:
        window = pulses.window(building.x, building.y, building.radius, building.height + 5)
        near = pulses[window]
        if near.x.size:
            met, height, brightness = buildings.hit(building, near)
            met &= height > surface[window]
            surface[window] = np.where(met, height, surface[window])
            codes[window] = np.where(met, BUILDING, codes[window])
            intensity[window] = np.where(met, brightness, intensity[window])
    lines = powerline.lines_near(flight.terrain, box[0] - lean, box[1], box[2] + lean, box[3])
    for line in lines:
        for window, met, height in powerline.tower_hits(line, pulses):
            surface[window] = np.where(met, height, surface[window])
            codes[window] = np.where(met, TOWER, codes[window])
            intensity[window] = np.where(met, _INTENSITY[TOWER], intensity[window])

    # Layers from the top down. A pulse meets each at most once.
    layers: list[_Layer] = []
    for line in lines:
        for pulse, height in powerline.wire_hits(line, pulses):
            above = height > surface.ravel()[pulse] + 0.5
            layers.append((pulse[above], height[above], WIRE, _INTENSITY[WIRE]))
    crowns = vegetation.canopy(objects.trees, pulses)
    leaves, goes_on = vegetation.crown_returns(crowns, surface, pulses)
    ground = pulses.z.ravel()
    for leaf in leaves:
        code = vegetation.height_class(leaf.z - ground[leaf.pulse])
        layers.append((leaf.pulse, leaf.z, code, leaf.intensity))
    # Still water mirrors: little comes back, and less the further from nadir.
    glint = 0.06 + 0.5 * np.exp(-((pulses.slope / 0.05) ** 2))
    silent = (codes == WATER) & (draws.uniform(pulses.keys, 10) > glint)
    last = np.flatnonzero((goes_on & ~silent).ravel())
    layers.append((last, surface.ravel()[last], codes.ravel()[last], intensity.ravel()[last]))
    return _points(flight, strip, _with_noise(layers, pulses, noise_fraction))


def _open_ground(
    flight: Flight, pulses: Pulses, water: np.ndarray, box: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height, ASPRS code and intensity, each (rows, columns), of ground, grass and water."""
    size = landscape.PLOT_M
    left, bottom = int(np.floor(box[0] / size)), int(np.floor(box[1] / size))
    right, top = int(np.floor(box[2] / size)), int(np.floor(box[3] / size))
    uses = np.array(
        [
            [landscape.use_of_plot(flight.terrain.seed, column, row) for row in range(bottom, top + 1)]
            for column in range(left, right + 1)
        ]
    )
    column = np.floor(pulses.x / size).astype(np.int64) - left
    row = np.floor(pulses.y / size).astype(np.int64) - bottom
    use = uses[column, row]
    road = landscape.on_road(pulses.x, pulses.y)
    chance, fraction = draws.uniform_pair(pulses.keys, 11)
    grows = (chance < landscape.LOW_VEGETATION[use]) & ~road & ~water
    # Mostly grass under half a metre; now and then a shrub of class 4.
    height = 0.1 + 0.9 * fraction**3
    surface = pulses.z + np.where(grows, height, 0.0)
    codes = np.where(grows, vegetation.height_class(height), np.where(water, WATER, GROUND).astype(np.uint8))
    intensity = landscape.GROUND_INTENSITY[use]
    intensity = np.where(road, landscape.ROAD_INTENSITY, intensity)
    intensity = np.where(grows, 32000.0, np.where(water, 1500.0, intensity))
    return surface, codes, intensity


def _with_noise(layers: list[_Layer], pulses: Pulses, fraction: float) -> list[_Layer]:
    """The layers, where a share of all pulses gives one noise point and nothing else."""
    if not fraction:
        return layers
    keys = pulses.keys.ravel()
    chance, up = draws.uniform_pair(keys, 12)
    noisy = chance < fraction
    kept: list[_Layer] = []
    for pulse, z, code, intensity in layers:
        keep = ~noisy[pulse]
        kept.append(
            (
                pulse[keep],
                z[keep],
                code[keep] if isinstance(code, np.ndarray) else code,
                intensity[keep] if isinstance(intensity, np.ndarray) else intensity,
            )
        )
    ground = pulses.z.ravel()
    high, low = np.flatnonzero(noisy & (up >= 0.4)), np.flatnonzero(noisy & (up < 0.4))
    # Birds and haze 25 to 60 m up, multipath 1.5 to 7 m down.
    kept.append((high, ground[high] + 25 + 35 * (up[high] - 0.4) / 0.6, HIGH_NOISE, _INTENSITY[HIGH_NOISE]))
    kept.append((low, ground[low] - 1.5 - 5.5 * up[low] / 0.4, LOW_NOISE, _INTENSITY[LOW_NOISE]))
    return kept


def _points(flight: Flight, strip: Strip, layers: list[_Layer]) -> dict[str, np.ndarray]:
    pulses = strip.pulses
    pulse = np.concatenate([layer[0] for layer in layers])
    z = np.concatenate([layer[1] for layer in layers])
    code = np.concatenate([np.broadcast_to(layer[2], layer[0].shape) for layer in layers]).astype(np.uint8)
    energy = np.concatenate([np.broadcast_to(layer[3], layer[0].shape) for layer in layers])
    # Stable: layers come from the top down, so the returns of a pulse stay in that order.
    order = np.argsort(strip.order.ravel()[pulse], kind="stable")
    pulse, z, code, energy = pulse[order], z[order], code[order], energy[order]

    starts = np.flatnonzero(np.diff(pulse, prepend=-1))
    counts = np.diff(starts, append=len(pulse))
    number_of_returns = np.repeat(counts, counts)
    return_number = np.arange(len(pulse)) - np.repeat(starts, counts) + 1

    keys = draws.extend(pulses.keys.ravel()[pulse], return_number)
    z = z + _RANGE_NOISE_M * draws.normal(keys, 13)
    slope = pulses.slope.ravel()[pulse]
    # A pulse's light is shared between its returns; the last ones get less than their part.
    energy = energy * number_of_returns**-0.7 * (1 + 0.08 * draws.normal(keys, 14))
    scans = np.repeat(strip.rightwards.ravel(), strip.order.shape[1])
    return {
        "x": pulses.x.ravel()[pulse] - slope * (z - pulses.z.ravel()[pulse]),
        "y": pulses.y.ravel()[pulse],
        "z": z,
        "intensity": np.clip(energy, 1, 65535).astype(np.uint16),
        "return_number": return_number.astype(np.uint8),
        "number_of_returns": number_of_returns.astype(np.uint8),
        "scan_direction_flag": scans[pulse].astype(np.uint8),
        "edge_of_flight_line": strip.edge.ravel()[pulse].astype(np.uint8),
        "classification": code,
        "scan_angle": flight.scan_angle(strip.line, slope),
        "point_source_id": np.full(len(pulse), strip.line + 1, np.uint16),
        "gps_time": flight.gps_time(strip.line, strip.order.ravel()[pulse]),
    }
