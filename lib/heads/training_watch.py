"""What is kept of a training run: thinned loss curves, and a watch for features that collapse."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from lib.heads.checkpoints import Curves
from lib.losses import effective_rank
from lib.patches import PatchSet

CURVE_POINTS = 60  # of a loss curve in a record: means over equal stretches of steps
PROBES = 4  # training samples whose adapted features are watched for collapse
COLLAPSE_SHARE = 0.5  # of the value before training, under which a warning is due


def thinned(curve: Sequence[float], num_steps: int) -> list[float]:
    """Means over stretches of steps, so that a whole run has at most `CURVE_POINTS` of them.

    Args:
        curve: one value a step, for the last `len(curve)` steps of the run.
        num_steps: of the run.
    """
    stretch = -(-num_steps // CURVE_POINTS)
    return [sum(part) / len(part) for part in (curve[i : i + stretch] for i in range(0, len(curve), stretch))]


class CollapseWatch:
    """Effective rank and scale of the adapted features of a few training samples, epoch by epoch.

    LC and GC alone are smallest where all features are equal; contrast alone does not care how large they are.

    Args:
        adapt: gives a sample's patches with adapted features, by the adaptors as they are at the moment.
        patch_sets: training samples, of which some are watched.
    """

    def __init__(self, adapt: Callable[[PatchSet], PatchSet], patch_sets: Sequence[PatchSet]) -> None:
        self._adapt = adapt
        self._probes = [patch_sets[index] for index in range(0, len(patch_sets), -(-len(patch_sets) // PROBES))]
        self.history = Curves()
        self.look()

    def look(self) -> None:
        """Add the present rank and scale of both modalities to the history."""
        adapted = [self._adapt(patch_set) for patch_set in self._probes]
        for modality in ("rgb", "xyz"):
            rows = torch.cat([getattr(patch_set, modality) for patch_set in adapted])
            scale = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())
            self.history.setdefault(f"rank_{modality}", []).append(effective_rank(rows))
            self.history.setdefault(f"scale_{modality}", []).append(scale)

    def warn(self) -> None:
        """Warn of features that lost rank (few directions left) or scale (one point left) since training began."""
        for name, values in self.history.items():
            first, last = values[0], values[-1]
            if last < COLLAPSE_SHARE * first:
                measure, modality = name.split("_")
                warnings.warn(
                    f"LSFA: the {measure} of the adapted {modality} features fell from {first:.1f} to {last:.1f}; "
                    "they may have collapsed: lower weight_lc and weight_gc, or raise weight_la",
                    RuntimeWarning,
                    stacklevel=3,
                )
