"""Small organised clouds for the tests of 3D features."""

from __future__ import annotations

import numpy as np


def bumpy_cloud(height=26, width=23, seed=5, pitch_m=5e-4, missing=0.08):
    """Organised cloud (H, W, 3) float64 of a generic relief 0.4 m away, its mask, and missing returns."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(float)
    x, y = (columns - width / 2) * pitch_m, (rows - height / 2) * pitch_m
    z = 0.4 - 0.002 * np.sin(x * 600 + 0.3) * np.cos(y * 450) - 20 * x**2 + generator.normal(0, 1e-4, x.shape)
    mask = generator.random((height, width)) >= missing
    return np.stack([x, y, z], axis=-1) * mask[..., None], mask


def sphere_cloud(radius_m, height=31, width=33, pitch_m=5e-4):
    """Organised cloud (H, W, 3) float64 of a cap of a sphere whose top faces a sensor 0.4 m away, wholly valid."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    x, y = (columns - (width - 1) / 2) * pitch_m, (rows - (height - 1) / 2) * pitch_m
    z = 0.4 + radius_m - np.sqrt(radius_m**2 - x**2 - y**2)
    return np.stack([x, y, z], axis=-1), np.ones((height, width), dtype=bool)


def plane_cloud(normal=(0.2, -0.3, -1.0), height=27, width=25, pitch_m=5e-4):
    """Organised cloud (H, W, 3) float64 of a tilted plane 0.4 m away and the plane's unit normal towards the sensor."""
    normal = np.asarray(normal) / np.linalg.norm(normal)
    rows, columns = np.mgrid[:height, :width].astype(float)
    x, y = (columns - width / 2) * pitch_m, (rows - height / 2) * pitch_m
    z = 0.4 - (normal[0] * x + normal[1] * y) / normal[2]
    return np.stack([x, y, z], axis=-1), np.ones((height, width), dtype=bool), normal


def rotation(seed=11):
    """(3, 3) random rotation matrix."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))
