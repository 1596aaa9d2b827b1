"""The four object families and what else belongs to each: its boards, its inside, and what may soil it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.errors import InputError
from lib.synth3d import biscuit, cord, ring, sweet
from lib.synth3d.canvas import Canvas
from lib.synth3d.layers import Layers


@dataclass(frozen=True)
class Family:
    """One object family.

    Attributes:
        sample: draws the latent of one nominal object; the latent has a field `parts`.
        build: draws the layers of a latent on a canvas; a pure function of both.
        num_kinds: number of part kinds.
        boards: names of the boards it is shown on, chosen so that it stands out.
        flesh: color of the inside, seen in holes and cuts.
        stains: colors that may soil it.
        debris: colors of foreign things on it.
    """

    sample: Callable[[np.random.Generator], Any]
    build: Callable[[Any, Canvas], Layers]
    num_kinds: int
    boards: tuple[str, ...]
    flesh: str
    stains: tuple[str, ...]
    debris: tuple[str, ...]


FAMILIES = {
    "biscuit": Family(
        biscuit.sample, biscuit.build, len(biscuit.KIND_NAMES), ("slate", "wood_dark", "linen"),
        "#a9713a", ("#4b3524", "#4d5a8a", "#6f7a3c"), ("#6f7378", "#3a62a0", "#8a8f86", "#4b3a2c"),
    ),
    "ring": Family(
        ring.sample, ring.build, len(ring.KIND_NAMES), ("wood_light", "paper", "marble"),
        "#28241f", ("#c9c0ae", "#a4522b", "#8fa05f"), ("#a7abae", "#3f7d4a", "#b79a6a", "#7d2f33"),
    ),
    "cord": Family(
        cord.sample, cord.build, len(cord.KIND_NAMES), ("wood_dark", "slate", "linen"),
        "#efe8da", ("#2a2521", "#3d5fa0", "#5f8f4a"), ("#73777c", "#3a62a0", "#e3dfd5", "#3c3530"),
    ),
    "sweet": Family(
        sweet.sample, sweet.build, len(sweet.KIND_NAMES), ("slate", "wood_dark", "paper"),
        "#b3566c", ("#6b4528", "#5c6273", "#7d7a2c"), ("#6f7378", "#3f7f86", "#5b4630", "#9a9c98"),
    ),
}  # fmt: skip
CATEGORIES = tuple(FAMILIES)


def family_of(category: str) -> Family:
    """The family of a category name.

    Raises:
        InputError: the name is unknown.
    """
    if category not in FAMILIES:
        raise InputError(f"category {category!r}: synth3d has no such category; use one of {', '.join(CATEGORIES)}")
    return FAMILIES[category]
