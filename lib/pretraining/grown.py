"""Pretraining objects that grow: leaf, seashell, kernels, cone, bark, pebbles, petals."""

from __future__ import annotations

import numpy as np

from lib.pretraining.paint import material, palette
from lib.pretraining.shapes import cells, per_cell, pick, pile, place, rise, roughen, scatter, silhouette, solid
from lib.synth3d.canvas import Canvas, mix, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, harmonics, outline


def leaf(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A curled leaf with midrib and side veins, smooth or toothed at the edge."""
    long, slim = generator.uniform(34, 50), generator.uniform(0.35, 0.75)
    x, y = place(generator, canvas, long)
    y = y - np.float32(generator.uniform(-0.006, 0.006)) * (x**2 - 300)
    t = np.clip(x / np.float32(long), -1, 1)
    half = np.float32(long * slim) * (1 - t**2) ** np.float32(generator.uniform(0.6, 1.1)) * (1 - generator.uniform(
        0, 0.5) * t)  # fmt: skip
    teeth = generator.uniform(0, 1.2) * np.abs((x / np.float32(generator.uniform(2, 5))) % 1 - 0.5)
    depth = half - np.abs(y) - teeth - 4 * (np.abs(x) > long)
    spacing, lean = generator.uniform(3, 9), generator.uniform(0.4, 1.2)
    phase = (x - np.abs(y) * np.float32(lean) + 0.02 * y**2) / np.float32(spacing)
    side = np.float32(spacing) * np.abs(phase % 1 - 0.5)
    veins = np.maximum(smoothstep(0.55, 0.1, side), smoothstep(1.3, 0.3, np.abs(y) + 0.4 * t))
    pillow = generator.uniform(0, 1.5) * np.sqrt(np.clip(side / spacing * 2, 0, 1)) * np.clip(depth / 5, 0, 1)
    curl = generator.uniform(0, 6) * (np.abs(y) / (half + 1)) ** 2 + generator.uniform(-3, 5) * t**2
    height = 3.0 + curl + pillow + generator.uniform(-0.8, 0.9) * veins + smooth_noise(generator, canvas, 14.0)
    colors = palette(generator, 3)
    tints = mix(mix(colors[0], colors[1], smoothstep(6, 0, depth) * generator.random()), colors[2], 0.8 * veins)
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.4))


def shell(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A fan-shaped shell: ribs from the hinge, growth lines across, a domed back."""
    reach = generator.uniform(28, 48)
    x, y = place(generator, canvas, reach)
    down = y + np.float32(0.9 * reach)
    theta, rho = np.arctan2(x, down), np.hypot(x, down)
    spread, ribs = generator.uniform(0.6, 1.0), generator.uniform(8, 34)
    wave = np.cos(theta / np.float32(spread) * np.float32(ribs))
    far = 1.8 * reach * np.cos(np.clip(theta, -1.5, 1.5) / spread * 0.75) + generator.uniform(0, 1.2) * wave
    depth = np.minimum(far - rho, (np.float32(spread * 1.25) - np.abs(theta)) * rho)
    share = np.clip(rho / np.maximum(far, 1), 0, 1)
    dome = generator.uniform(6, 18) * np.sqrt(np.clip(1 - (2 * share - 1) ** 2, 0, 1)) * np.cos(theta / spread)
    rings = np.sin(rho * np.float32(2 * np.pi / generator.uniform(2, 8)) + 0.6 * smooth_noise(generator, canvas, 15.0))
    relief = generator.uniform(0.2, 1.3) * wave * share + generator.uniform(0, 0.4) * rings
    height = 1.5 + np.maximum(dome, 0) + relief
    colors = palette(generator, 3)
    tints = mix(mix(colors[0], colors[1], 0.5 + 0.5 * rings * generator.random()), colors[2],
                smoothstep(-0.8, 0.8, wave) * generator.random())  # fmt: skip
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.5))


def kernels(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Rows of plump kernels on a flat or rounded body, as on an ear of corn."""
    half_width = generator.uniform(13, 30)
    x, y = place(generator, canvas, 48.0)
    depth = half_width * np.sqrt(np.clip(1 - (x / 47) ** 2, 0, 1)) ** np.float32(generator.uniform(0.5, 1)) - np.abs(y)
    around = np.arcsin(np.clip(y / half_width, -1, 1)) * half_width
    long, wide = generator.uniform(3.5, 8), generator.uniform(3.5, 8)
    wobble = generator.uniform(0, 0.8) * smooth_noise(generator, canvas, 12.0)
    u, v, row, column = cells(x + wobble, around + wobble, long, wide, float(generator.choice([0, 0.3, 0.5])))
    boxy = generator.uniform(2, 5)
    rest = 1 - (np.abs(2 * u / long) ** boxy + np.abs(2 * v / wide) ** boxy)
    chance = per_cell(generator, row, column)
    bulge = np.maximum(rest, 0) ** np.float32(generator.uniform(0.3, 0.8)) * (0.7 + 0.5 * chance)
    body = generator.uniform(4, 16) * np.sqrt(np.clip(1 - (y / half_width) ** 2, 0, 1))
    height = 1 + body * np.clip(depth / 6, 0, 1) ** np.float32(0.5) + generator.uniform(1, 3) * bulge
    colors = palette(generator, 4)
    tints = mix(colors[3], pick(colors[:3], chance**2), smoothstep(0.0, 0.3, rest))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.6))


def cone(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Overlapping scales, each raised towards its free end, on an egg-shaped or flat body."""
    long, slim = generator.uniform(36, 50), generator.uniform(0.5, 1.0)
    x, y = place(generator, canvas, long)
    egg = outline(harmonics(generator, range(1, 4), 0.05), np.arctan2(y, x))
    rho = np.hypot(x, y / np.float32(slim)) / (np.float32(long * 0.9) * egg)
    depth = (1 - rho) * np.float32(long * slim)
    step, wide = generator.uniform(4, 10), generator.uniform(5, 13)
    tallest, colors = np.zeros_like(x), palette(generator, 3)
    albedo = np.zeros((*x.shape, 3), np.float32) + colors[2]
    lean, point = generator.uniform(1, 4), generator.uniform(0.8, 2.2)
    for shift in (0, 1):  # every other row of scales lies over the next one
        u, v, row, column = cells(x + shift * step / 2, y + shift * wide / 2, step * 2, wide)
        near = np.clip(u / (step * 2) + 0.5, 0, 1)
        blade = 1 - np.abs(2 * v / wide) ** 2 - np.abs(2 * near - 1) ** np.float32(2 * point)
        top = (lean * near + 0.8 * np.sqrt(np.maximum(blade, 0))) * (blade > 0)
        above = top > tallest
        tints = mix(colors[0], colors[1], np.clip(near + 0.4 * per_cell(generator, row, column) - 0.2, 0, 1))
        tallest, albedo = np.where(above, top, tallest), np.where(above[..., None], tints, albedo)
    body = generator.uniform(2, 14) * np.sqrt(np.clip(1 - rho**2, 0, 1))
    return solid(canvas, depth, 1 + body + tallest, material(generator, canvas, albedo), generator.uniform(0, 0.4))


def bark(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A slab of bark: long ridges, deep fissures, flakes."""
    _, _, depth = silhouette(generator, canvas)
    depth = depth + generator.uniform(0, 1.5) * smooth_noise(generator, canvas, 4.0)
    cell = generator.permutation([generator.uniform(2.5, 6), generator.uniform(9, 40)]).tolist()
    ridges = smooth_noise(generator, canvas, *cell)
    bend = smooth_noise(generator, canvas, 20.0)
    fissure = np.exp(-((ridges + 0.3 * bend) ** 2) / np.float32(generator.uniform(0.02, 0.3)))
    flakes = smooth_noise(generator, canvas, *(np.array(cell) / 2).tolist())
    step = generator.uniform(0.6, 1.6)
    plates = np.floor(flakes / step) * step if generator.random() < 0.5 else np.abs(flakes)
    height = generator.uniform(4, 10) - generator.uniform(1, 4) * fissure + generator.uniform(0.2, 1.6) * plates
    height = (height + roughen(generator, canvas, 1.5, 0.25)) * rise(depth, generator.uniform(0.3, 5), 2)
    colors = palette(generator, 3)
    tints = mix(mix(colors[0], colors[1], smoothstep(-1, 1, flakes)), colors[2], fissure * generator.uniform(0.3, 1))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.2))


def pebbles(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A heap of stones, beans or lentils, each of its own color."""
    large = generator.uniform(3.5, 12)
    centers = scatter(generator, large * generator.uniform(0.9, 1.5))
    heap = generator.uniform(18, 46)
    middle = generator.uniform(-8, 8, 2)
    if generator.random() < 0.7:
        centers = centers[np.hypot(*(centers - middle).T) < heap]
    centers = centers[:220]
    height, index = pile(
        generator, canvas, centers, (0.55 * large, large), (0.3 * large, 0.9 * large),
        generator.uniform(0.3, 0.8), generator.uniform(0, 6),
    )  # fmt: skip
    colors = palette(generator, int(generator.integers(1, 7)))
    tones = generator.uniform(0.75, 1.2, (len(centers) + 1, 1)).astype(np.float32)
    tints = (colors[generator.integers(0, len(colors), len(centers) + 1)] * tones)[index]
    height = height + roughen(generator, canvas, 2.0, generator.uniform(0, 0.15))
    depth = np.where(index >= 0, np.float32(1), np.float32(-1))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.7))


def petals(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A rosette of overlapping petals in rings, higher towards the middle or hollow."""
    reach = generator.uniform(30, 50)
    x, y = place(generator, canvas, reach)
    theta, rho = np.arctan2(y, x), np.hypot(x, y)
    colors = palette(generator, 3)
    height, depth = np.zeros_like(x), np.full_like(x, -99.0)
    albedo = np.zeros((*x.shape, 3), np.float32) + colors[0]
    rings, slope = int(generator.integers(2, 7)), generator.uniform(0.5, 2.5)
    for ring in range(rings):
        outer, count = reach * (1 - 0.8 * ring / rings), max(4, int(generator.integers(5, 13) - ring))
        turns = theta * np.float32(count / (2 * np.pi)) + np.float32(generator.random())
        side = np.abs(turns % 1 - 0.5) * 2
        edge = np.float32(outer) * (1 - generator.uniform(0.2, 0.5) * side**2) - rho
        cup = (1 - side**2) * generator.uniform(0.3, 1.5) + np.clip(rho / outer, 0, 1) * generator.uniform(0, 2)
        height = np.where(edge > 0, 1 + slope * ring + cup, height)
        tints = mix(colors[1], colors[2], np.clip(rho / outer * 0.8 + 0.3 * side, 0, 1))
        albedo = np.where((edge > 0)[..., None], tints, albedo)
        depth = np.maximum(depth, edge)
    return solid(canvas, depth, height, material(generator, canvas, albedo), generator.uniform(0, 0.4))
