"""The cord: a thick braided rope in a gentle curve, with bands of three kinds wrapped round it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from lib.synth3d.canvas import FIELD_MM, Canvas, color, mix, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, Parts, sample_parts

KIND_NAMES = ("red smooth", "green ribbed", "yellow knotted")
KIND_COLORS = (("#b52a35",), ("#2c8a63",), ("#dba31f",))
BAND_HALF_WIDTH_MM = 3.9
BAND_SPACING_MM = 16.0
NUM_STRANDS = 12  # in each of the two directions, round the whole cord
STRAND_PERIOD_MM = 4.9
TUFT_MM = 4.5
WHIPPING_MM = 3.2


@dataclass(frozen=True)
class CordLatent:
    """Everything that decides one cord but the textures, which follow from `texture_seed`.

    Attributes:
        path_mm: (129, 2) center line on the canvas, equal steps.
        length_mm: length of the center line.
        radius_mm: half the thickness.
        first_band_mm: distance of the first band's middle from the start.
        phase: shift of the braid along the cord, in periods.
        tracer: color of the marked strands, 0 navy to 1 brown.
        parts: the bands.
        texture_seed: seed of the textures.
    """

    path_mm: np.ndarray
    length_mm: float
    radius_mm: float
    first_band_mm: float
    phase: float
    tracer: float
    parts: Parts
    texture_seed: int


def _sample_path(generator: np.random.Generator, radius_mm: float) -> tuple[np.ndarray, float]:
    """Center line (129, 2) in millimetres and its length, fitted into the field of view at a random heading."""
    s = np.linspace(-0.5, 0.5, 129)
    turn = generator.choice([-1, 1]) * generator.uniform(np.deg2rad(90), np.deg2rad(215))
    sway = generator.normal(0, 0.25)
    heading = generator.uniform(0, 2 * np.pi) + turn * s + sway * np.cos(2 * np.pi * s)
    middle = (heading[1:] + heading[:-1]) / 2
    steps = np.stack([np.cos(middle), np.sin(middle)], 1) / (len(s) - 1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    low, high = path.min(0), path.max(0)
    room = FIELD_MM - 2 * (6.2 + 1.12 * radius_mm)
    length = min(generator.uniform(128.0, 142.0), room / (high - low).max())
    slack = np.minimum((room - length * (high - low)) / 2, 6.0)
    return (path - (low + high) / 2) * length + generator.uniform(-1, 1, 2) * slack, float(length)


def sample(generator: np.random.Generator) -> CordLatent:
    """One cord of the nominal class."""
    radius = generator.uniform(8.2, 9.0)
    path, length = _sample_path(generator, radius)
    num_bands = int((length - 32.0) // BAND_SPACING_MM) + 1
    spare = length - (num_bands - 1) * BAND_SPACING_MM
    return CordLatent(
        path_mm=path,
        length_mm=length,
        radius_mm=radius,
        first_band_mm=spare / 2 + generator.uniform(-1.0, 1.0),
        phase=generator.uniform(0, 1),
        tracer=generator.uniform(0, 1),
        parts=sample_parts(generator, num_bands, len(KIND_NAMES)),
        texture_seed=int(generator.integers(2**31)),
    )


def _cord_coordinates(latent: CordLatent, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Distance along the cord and signed distance across it, in millimetres, of every pixel.

    The nearest point of the center line is found on a coarse grid, enlarged, and corrected by one projection onto
    the local tangent: exact enough near the cord, at a small part of the cost of the full search.
    """
    coarse = np.linspace(-FIELD_MM / 2, FIELD_MM / 2, 57)
    grid = np.stack(np.meshgrid(coarse, coarse), -1)
    squared = ((grid[:, :, None, :] - latent.path_mm) ** 2).sum(-1)
    nearest = squared.argmin(-1) * (latent.length_mm / 128)
    where = (np.stack([canvas.y_mm, canvas.x_mm]) + FIELD_MM / 2) * (56 / FIELD_MM)
    s = map_coordinates(nearest.astype(np.float32), where, order=1)
    knots = np.linspace(0, latent.length_mm, 129)
    tangent = np.gradient(latent.path_mm, knots, axis=0)
    for _ in range(2):
        point = [np.interp(s, knots, latent.path_mm[:, axis]) for axis in range(2)]
        ahead = [np.interp(s, knots, tangent[:, axis]) for axis in range(2)]
        dx, dy = canvas.x_mm - point[0], canvas.y_mm - point[1]
        step = dx * ahead[0] + dy * ahead[1]
        across = dy * ahead[0] - dx * ahead[1]
        s = np.clip(s, 0, latent.length_mm) + step
    return s.astype(np.float32), across.astype(np.float32)


def _braid(latent: CordLatent, s: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relief (0 to 1), marked strand (bool) and fibre shade (-1 to 1) of a two-family braid."""
    along = s / np.float32(STRAND_PERIOD_MM) + np.float32(latent.phase)
    round_ = phi * np.float32(NUM_STRANDS / (2 * np.pi))
    u, v = along + round_, along - round_
    cell_u, cell_v = np.floor(u), np.floor(v)
    u_on_top = (cell_u + cell_v) % 2 == 0
    width = np.where(u_on_top, u - cell_u, v - cell_v)
    length = np.where(u_on_top, v - cell_v, u - cell_u)
    relief = (1 - (2 * width - 1) ** 2) * (0.45 + 0.55 * np.sin(np.float32(np.pi) * length))
    marked = np.where(u_on_top, cell_u % 5 == 0, cell_v % 5 == 2)
    return relief, marked, np.sin(np.float32(2 * np.pi * 4) * width)


def _band_relief(kind: np.ndarray, along: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """(S, S) millimetres of the band under each pixel over the cord; `along` runs from -1 to 1 across the band."""
    edge = smoothstep(1.0, 0.86, np.abs(along))
    ribs = 0.4 + 1.8 * np.abs(np.sin(np.float32(2 * np.pi) * along))
    crossing = np.zeros_like(along)
    for side in (-1, 1):
        off = np.abs((0.5 * along + np.float32(side * 1.05) * phi) % 1 - 0.5) / np.float32(0.3)
        np.maximum(crossing, np.sqrt(np.maximum(1 - off**2, 0)), out=crossing)
    return edge * np.choose(kind, [np.full_like(along, 1.3), ribs, 0.3 + 2.9 * crossing])


def _ends(
    latent: CordLatent, generator: np.random.Generator, canvas: Canvas, s: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance inside the outline in millimetres, share of whipping and share of frayed tuft at the two ends."""
    to_end = np.minimum(s, latent.length_mm - s)
    strands = generator.standard_normal(64).astype(np.float32)
    fibre = strands[np.clip(np.rint(across * 2.2 + 32), 0, 63).astype(np.int64)]
    tuft = smoothstep(TUFT_MM + 0.2, TUFT_MM - 0.2, to_end)
    whipping = smoothstep(TUFT_MM + WHIPPING_MM + 0.2, TUFT_MM + WHIPPING_MM - 0.2, to_end) - tuft
    flare = 1 + 0.12 * np.clip(1 - to_end / TUFT_MM, 0, 1) - 0.06 * whipping
    side = np.float32(latent.radius_mm) * flare - np.abs(across)
    return np.minimum(side, to_end - 0.8 * np.abs(fibre)), whipping, tuft


def _rope(latent: CordLatent, canvas: Canvas, s: np.ndarray, across: np.ndarray, phi: np.ndarray) -> Layers:
    """The braided cord without bands; its ends are whipped with dark thread and frayed."""
    generator = np.random.default_rng(latent.texture_seed)
    depth, whipping, tuft = _ends(latent, generator, canvas, s, across)
    fine = smooth_noise(generator, canvas, 0.9)
    relief, marked, fibre = _braid(latent, s, phi)
    turns = np.abs(np.sin(np.float32(2 * np.pi / 2.2) * np.minimum(s, latent.length_mm - s)))
    hair = np.sin(across * np.float32(5.0) + 1.5 * fine)
    braided = 1 - whipping - tuft
    height = np.float32(latent.radius_mm) * (1 + np.cos(phi) * (1 - 0.25 * tuft))
    surface = braided * (1.7 * relief - 0.9 + 0.05 * fibre) + whipping * (0.6 * turns - 0.3) + 0.35 * tuft * hair
    height = np.where(depth > 0, height + surface * np.cos(phi) + 0.05 * fine, 0).astype(np.float32)
    strand = mix(color("#2b3f6b"), color("#70442a"), latent.tracer)
    straw = color("#cdb78a")
    albedo = np.where(marked[..., None], strand, straw) * (0.52 + 0.48 * relief + 0.06 * fibre + 0.04 * fine)[..., None]
    albedo = mix(albedo, straw * (0.8 + 0.2 * hair)[..., None], tuft)
    albedo = mix(albedo, color("#4a4038") * (0.7 + 0.5 * turns)[..., None], whipping)
    coverage = smoothstep(-0.5 * canvas.pitch_mm, 0.5 * canvas.pitch_mm, depth)
    return Layers(height, albedo.astype(np.float32), np.full_like(height, 0.04), coverage)


def build(latent: CordLatent, canvas: Canvas) -> Layers:
    """Layers of one cord."""
    s, across = _cord_coordinates(latent, canvas)
    phi = np.arcsin(np.clip(across / np.float32(latent.radius_mm), -1, 1))
    layers = _rope(latent, canvas, s, across, phi)
    band = np.clip(np.rint((s - latent.first_band_mm) / BAND_SPACING_MM), 0, len(latent.parts) - 1).astype(np.int64)
    along = (s - latent.first_band_mm - BAND_SPACING_MM * band) / np.float32(BAND_HALF_WIDTH_MM)
    inside = np.abs(along) < 1
    soft = 0.6 * canvas.pitch_mm / BAND_HALF_WIDTH_MM
    alpha = smoothstep(1 + soft, 1 - soft, np.abs(along))
    kinds = latent.parts.kinds[band]
    relief = _band_relief(kinds, along, phi) * latent.parts.reliefs[band] * np.sqrt(np.maximum(np.cos(phi), 0))
    wrapped = np.maximum(layers.height, latent.radius_mm * (1 + np.cos(phi)) + 0.4) + relief
    layers.height[...] = np.where(inside & (layers.height > 0), wrapped, layers.height)
    palette = np.stack([color(code) for (code,) in KIND_COLORS])
    layers.albedo[...] = mix(layers.albedo, palette[kinds] * latent.parts.tones[band], alpha)
    layers.gloss[...] += 0.14 * alpha
    return layers
