"""The families of pretraining objects by name: none of synth3d's, and none drawn by synth3d's object or defect code.

Toothed wheels and braids are left out, because synth3d has a tire ring and a cord.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.pretraining import grown, machined, soft
from lib.synth3d.canvas import Canvas
from lib.synth3d.layers import Layers

Family = Callable[[np.random.Generator, Canvas], Layers]

FAMILIES: dict[str, Family] = {
    "brick": machined.brick,
    "medal": machined.medal,
    "plate": machined.plate,
    "keyboard": machined.keyboard,
    "circuit": machined.circuit,
    "tile": machined.tile,
    "honeycomb": machined.honeycomb,
    "leaf": grown.leaf,
    "shell": grown.shell,
    "kernels": grown.kernels,
    "cone": grown.cone,
    "bark": grown.bark,
    "pebbles": grown.pebbles,
    "petals": grown.petals,
    "cushion": soft.cushion,
    "foil": soft.foil,
    "pasta": soft.pasta,
    "terraces": soft.terraces,
    "freeform": soft.freeform,
}
