"""The board an object lies on: wood, slate, paper, linen or marble."""

from __future__ import annotations

import numpy as np

from lib.synth3d.canvas import Canvas, Pose, color, mix, smooth_noise, smoothstep


def _wood(generator: np.random.Generator, canvas: Canvas, light: str, dark: str) -> np.ndarray:
    pose = Pose((float(generator.uniform(-40, 40)), float(generator.uniform(-40, 40))), 0.0)
    x, y = canvas.x_mm - pose.center_mm[0], canvas.y_mm - pose.center_mm[1]
    upright = generator.random() < 0.5
    along, across = (y, x) if upright else (x, y)
    cells = (1.2, 40.0) if upright else (40.0, 1.2)
    streaks = smooth_noise(generator, canvas, *cells)
    bend = smooth_noise(generator, canvas, 55.0)
    grain = np.sin(across * np.float32(generator.uniform(0.5, 0.9)) + 2.2 * bend + 0.01 * along) * 0.5
    plank = np.abs((across / np.float32(generator.uniform(38, 55))) % 1 - 0.5)
    albedo = mix(color(light), color(dark), np.clip(0.35 + 0.22 * grain + 0.16 * streaks, 0, 1))
    return albedo * (1 - 0.65 * smoothstep(0.487, 0.494, plank))[..., None]


def _wood_light(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    return _wood(generator, canvas, "#dcc49c", "#b08a58")


def _wood_dark(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    return _wood(generator, canvas, "#7d5537", "#4b2f1d")


def _slate(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    broad, fine = smooth_noise(generator, canvas, 14.0), smooth_noise(generator, canvas, 1.0)
    layered = smooth_noise(generator, canvas, 30.0, 3.0)
    albedo = mix(color("#3c434a"), color("#616a70"), np.clip(0.4 + 0.15 * broad + 0.18 * layered, 0, 1))
    return albedo * (1 + 0.10 * fine)[..., None]


def _paper(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    fibre = smooth_noise(generator, canvas, 0.9) + smooth_noise(generator, canvas, 5.0, 1.0)
    albedo = mix(color("#cdb894"), color("#b39b74"), np.clip(0.5 + 0.16 * fibre, 0, 1))
    return albedo * (1 + 0.04 * smooth_noise(generator, canvas, 25.0))[..., None]


def _linen(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    wobble = 0.3 * smooth_noise(generator, canvas, 9.0)
    weave = np.sin(canvas.x_mm * 4.2 + wobble) * np.sin(canvas.y_mm * 4.2 - wobble)
    slub = smooth_noise(generator, canvas, 18.0, 1.2) + smooth_noise(generator, canvas, 1.2, 18.0)
    tint = mix(color("#8fa3b5"), color("#b9b4a6"), float(generator.random()))
    return tint * (1 + 0.14 * weave + 0.07 * slub)[..., None]


def _marble(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    broad = smooth_noise(generator, canvas, 26.0) + 0.5 * smooth_noise(generator, canvas, 9.0)
    vein = np.exp(-((broad / 0.12) ** 2)) * smoothstep(-0.6, 1.0, smooth_noise(generator, canvas, 20.0))
    cloudy = np.clip(0.25 + 0.15 * smooth_noise(generator, canvas, 12.0), 0, 1)
    return mix(mix(color("#d9d7d2"), color("#b9bbbd"), cloudy), color("#75797f"), 0.7 * vein)


BOARDS = {
    "wood_light": _wood_light, "wood_dark": _wood_dark, "slate": _slate,
    "paper": _paper, "linen": _linen, "marble": _marble,
}  # fmt: skip


def board_albedo(generator: np.random.Generator, canvas: Canvas, choices: tuple[str, ...]) -> np.ndarray:
    """(S, S, 3) float32 linear reflectance of a board drawn from the named choices, with some brightness jitter."""
    name = choices[int(generator.integers(len(choices)))]
    albedo = BOARDS[name](generator, canvas) * np.float32(generator.uniform(0.9, 1.1))
    return np.clip(albedo, 0.01, 0.95).astype(np.float32)
