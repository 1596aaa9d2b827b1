"""Pretraining objects made by machines: stud brick, medal, bolted plate, keyboard, circuit, tile, honeycomb."""

from __future__ import annotations

import numpy as np

from lib.pretraining.paint import material, palette
from lib.pretraining.shapes import (
    box_depth,
    cells,
    glyph_depth,
    per_cell,
    pick,
    place,
    polygon_depth,
    rise,
    silhouette,
    solid,
)
from lib.synth3d.canvas import Canvas, mix, smooth_noise, smoothstep
from lib.synth3d.layers import Layers

SQRT3 = 3**0.5


def brick(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Toy bricks with studs, each its own color, at one or more levels."""
    across, along = int(generator.integers(2, 8)), int(generator.integers(1, 6))
    pitch = generator.uniform(6, 16)
    half = np.array([across, along]) * pitch / 2
    scale = np.clip(generator.uniform(30, 48) / np.hypot(*half), 0.5, 2.2)
    pitch, half = pitch * scale, half * scale
    x, y = place(generator, canvas, float(np.hypot(*half)))
    depth = box_depth(x, y, half[0], half[1], 0.4)
    u, v, row, column = cells(x + np.float32(half[0]), y + np.float32(half[1]), pitch, pitch)
    block = column // int(generator.integers(1, 4))
    level = np.floor(per_cell(generator, row, block) * generator.integers(1, 4))
    stud = pitch * generator.uniform(0.24, 0.38) - np.hypot(u, v)
    raised = generator.uniform(0.5, 2.6) * rise(stud, generator.uniform(0.1, 1), int(generator.integers(4)))
    height = generator.uniform(3, 9) + generator.uniform(1, 5) * level + raised
    height = height * rise(depth, 0.3, 1)
    tints = pick(palette(generator, 4), per_cell(generator, row, block))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0.05, 0.6))


def medal(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A struck piece with a raised edge, a ring of letters and a free relief in the middle."""
    radius, thick, relief = generator.uniform(26, 49), generator.uniform(1.5, 6), generator.uniform(0.4, 2.2)
    x, y = place(generator, canvas, radius)
    theta, rho = np.arctan2(y, x), np.hypot(x, y)
    sides = int(generator.choice([0, 0, 7, 8, 12]))
    depth = polygon_depth(x, y, sides, radius * 0.93) if sides else radius - rho
    edge = smoothstep(0.4, -0.4, depth - np.float32(generator.uniform(1.2, 0.1 * radius + 1.3)))
    size = radius * generator.uniform(0.13, 0.2)
    middle = radius * generator.uniform(0.72, 0.78)
    count = int(2 * np.pi * middle / (1.25 * size))
    turns = theta * np.float32(count / (2 * np.pi))
    letter = np.floor(turns).astype(np.int64) % 5
    u = (turns % 1 - np.float32(0.5)) * np.float32(2 * np.pi * middle / count)
    glyphs = np.stack([glyph_depth(generator, u, rho - middle, size) for _ in range(5)])
    written = smoothstep(-0.1, 0.3, np.take_along_axis(glyphs, letter[None], 0)[0])
    blobs = smooth_noise(generator, canvas, radius / 3) + 0.4 * smooth_noise(generator, canvas, radius / 9)
    figure = smoothstep(0.0, generator.uniform(0.2, 1.5), blobs) * smoothstep(0, 2, radius * 0.58 - rho)
    raised = np.maximum.reduce([edge, 0.8 * written, figure * np.float32(generator.uniform(0.5, 1.5))])
    colors = palette(generator, 2)
    tint = mix(colors[0], colors[1], np.clip(raised, 0, 1) * np.float32(generator.random()))
    return solid(canvas, depth, thick + relief * raised, material(generator, canvas, tint), generator.uniform(0, 0.7))


def _screw(generator: np.random.Generator, u: np.ndarray, v: np.ndarray, radius: float, drive: int) -> np.ndarray:
    """Array like `u`: height over the plate of a sunk screw of one of four drives."""
    rho = np.hypot(u, v)
    sink = -generator.uniform(0.8, 2.5) * np.clip((radius * 1.3 - rho) / (radius * 0.8), 0, 1)
    head = generator.uniform(0.3, 2.5) * np.sqrt(np.maximum(1 - (rho / np.float32(radius)) ** 2, 0))
    angle = generator.uniform(0, np.pi)
    slot = np.abs(u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle)))
    if drive == 1:
        slot = np.minimum(slot, np.abs(v * np.float32(np.cos(angle)) - u * np.float32(np.sin(angle))))
    cut = polygon_depth(u, v, 6, radius * 0.5) if drive == 2 else np.float32(radius * 0.17) - slot
    if drive == 3:
        return sink + generator.uniform(2, 5) * rise(polygon_depth(u, v, 6, radius * 0.85), 0.5, 1)
    return np.where(rho < radius, head - generator.uniform(0.6, 1.6) * smoothstep(-0.2, 0.2, cut), sink)


def plate(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A sheet with screws of one drive, a milled step and brushed metal or paint."""
    half = generator.uniform(22, 38, 2)
    x, y = place(generator, canvas, float(np.hypot(*half)))
    corner = generator.uniform(1, 8)
    depth = box_depth(x, y, half[0], half[1], corner)
    thick = generator.uniform(3.5, 9)
    height = thick * rise(depth, generator.uniform(0.3, 2.5), int(generator.integers(4)))
    height = height - generator.uniform(0, 0.4) * thick * smoothstep(-0.3, 0.3, x - generator.uniform(-15, 15))
    colors = palette(generator, 3)
    albedo = material(generator, canvas, colors[0])
    brushed = smooth_noise(generator, canvas, *generator.permutation([0.8, 25.0]).tolist())
    albedo = albedo * (1 + generator.uniform(0, 0.12) * brushed)[..., None]
    radius, pitch = generator.uniform(2.2, 6), generator.uniform(14, 26)
    u, v, row, column = cells(x, y, pitch, pitch * generator.uniform(0.8, 1.2), float(generator.choice([0, 0.5])))
    whole = box_depth(x - u, y - v, half[0], half[1], corner) > 1.4 * radius  # no screw across the edge
    used = (per_cell(generator, row, column) < generator.uniform(0.4, 1)) & whole
    height = height + used * _screw(generator, u, v, radius, int(generator.integers(4)))
    disc = smoothstep(0.3, -0.3, np.hypot(u, v) - radius) * used
    return solid(canvas, depth, height, mix(albedo, colors[1], disc), generator.uniform(0, 0.6))


def keyboard(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Keycaps with hollow tops and printed, raised or engraved signs on a frame."""
    x, y, depth = silhouette(generator, canvas, 0.4)
    pitch, gap = generator.uniform(9, 19), generator.uniform(0.5, 2)
    wide = pitch * generator.uniform(0.9, 1.8)
    u, v, row, column = cells(x, y, wide, pitch, float(generator.uniform(0, 0.6)))
    cap = box_depth(u, v, wide / 2 - gap, pitch / 2 - gap, generator.uniform(0.3, 2))
    tall = generator.uniform(3, 9) * (1 - 0.35 * (per_cell(generator, row, column) < generator.uniform(0, 0.3)))
    hollow = generator.uniform(-0.8, 1.2) * (1 - (np.hypot(u / wide, v / pitch) * 2) ** 2)
    key = rise(cap, generator.uniform(0.5, 3), int(generator.integers(1, 4))) * (tall - hollow)
    kind = (per_cell(generator, row, column) * 6).astype(np.int64)
    glyphs = np.stack([glyph_depth(generator, u, v, pitch * 0.42) for _ in range(6)])
    sign = smoothstep(-0.15, 0.2, np.take_along_axis(glyphs, kind[None], 0)[0])
    colors = palette(generator, 4)
    tints = pick(colors[:2], per_cell(generator, row, column) ** np.float32(3))
    tints = mix(mix(colors[2], tints, smoothstep(-0.2, 0.2, cap)), colors[3], sign)
    height = np.where(depth > 1.5, 1.5 + key + sign * generator.uniform(-0.6, 0.9) * (cap > 0), 2.5)
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.5))


def circuit(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A printed board with tracks, chips, cans and pins."""
    half = generator.uniform(24, 38, 2)
    x, y = place(generator, canvas, float(np.hypot(*half)))
    depth, colors = box_depth(x, y, half[0], half[1], 1.0), palette(generator, 5)
    track, width = generator.uniform(1.6, 3.5), generator.uniform(0.2, 0.45)
    u, v, row, column = cells(x, y, track * 3, track)
    turned = per_cell(generator, row // 3, column) < 0.5
    wire = np.where(turned, np.abs(v), np.abs((u + track / 2) % track - track / 2))
    albedo = mix(colors[0], colors[1], smoothstep(width + 0.2, width - 0.2, wire))
    height = 1.6 + 0.15 * (wire < width)
    gloss = np.full_like(x, 0.2)
    for _ in range(int(generator.integers(5, 14))):
        middle, size = generator.uniform(-0.8, 0.8, 2) * half, generator.uniform(1.5, 9, 2)
        tint, tall = colors[generator.integers(2, 5)], generator.uniform(1, 9)
        dx, dy = x - np.float32(middle[0]), y - np.float32(middle[1])
        if generator.random() < 0.35:
            part = np.float32(size[0]) - np.hypot(dx, dy)
            top = tall * rise(part, size[0] * generator.uniform(0.05, 1), int(generator.integers(4)))
        else:
            part = box_depth(dx, dy, size[0], size[1], 0.3)
            top = tall * rise(part, 0.5, int(generator.integers(4)))
            pins = box_depth((dx + 40) % 2 - 1, dy, 0.45, size[1] + 1.5, 0.1) * (np.abs(dx) < size[0])
            height, albedo = np.where((pins > 0) & (part < 0), 2.4, height), mix(albedo, colors[1], pins > 0)
        inside = part > 0
        height = np.where(inside, np.maximum(height, 1.6 + top), height)
        albedo, gloss = mix(albedo, tint, inside), np.where(inside, np.float32(generator.uniform(0, 0.7)), gloss)
    return solid(canvas, depth, height, material(generator, canvas, albedo), gloss)


def tile(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Tiles with a raised or sunk sign each, joints between them."""
    x, y, depth = silhouette(generator, canvas, 0.4)
    pitch, joint = generator.uniform(14, 40), generator.uniform(0.3, 1.5)
    u, v, row, column = cells(x, y, pitch, pitch * generator.uniform(0.6, 1), float(generator.choice([0, 0.5])))
    slab = box_depth(u, v, pitch / 2 - joint, pitch * 0.3 - joint, 0.5)
    slab = np.maximum(slab, 0) if generator.random() < 0.3 else slab
    kind = (per_cell(generator, row, column) * 4).astype(np.int64)
    glyphs = np.stack([glyph_depth(generator, u, v, pitch * 0.4) for _ in range(4)])
    sign = np.take_along_axis(glyphs, kind[None], 0)[0]
    raised = rise(sign, generator.uniform(0.3, 2), int(generator.integers(4))) * generator.uniform(-2, 2.5)
    flat = generator.uniform(2.5, 7)
    height = flat - 1.2 + 1.2 * rise(slab, generator.uniform(0.2, 2), int(generator.integers(4))) + raised
    colors = palette(generator, 5)
    tints = mix(colors[4], pick(colors[:3], per_cell(generator, row, column)), smoothstep(-0.2, 0.2, slab))
    tints = mix(tints, colors[3], smoothstep(-0.2, 0.2, sign) * np.float32(generator.random()))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.6))


def honeycomb(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Six-sided cells with walls, open or filled to different levels."""
    x, y, depth = silhouette(generator, canvas, 0.4)
    pitch = generator.uniform(4, 16)
    u, v, row, column = cells(x, y, pitch, pitch * SQRT3)
    u2, v2, row2, column2 = cells(x - np.float32(pitch / 2), y - np.float32(pitch * SQRT3 / 2), pitch, pitch * SQRT3)
    other = np.hypot(u2, v2) < np.hypot(u, v)
    u, v = np.where(other, u2, u), np.where(other, v2, v)
    row, column = np.where(other, 2 * row2 + 1, 2 * row), np.where(other, column2, column)
    inner = polygon_depth(u, v, 6, pitch / 2 - generator.uniform(0.3, 0.14 * pitch))
    wall, level = generator.uniform(3, 12), per_cell(generator, row, column)
    floor = 0.8 + wall * generator.uniform(0, 0.9) * level
    height = wall + (floor - wall) * rise(inner, generator.uniform(0.2, 2.5), int(generator.integers(4)))
    colors = palette(generator, 4)
    tints = mix(colors[0], pick(colors[1:], per_cell(generator, row, column)), smoothstep(-0.2, 0.3, inner))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.6))
