"""LSFA (Tu et al., ECCV 2024): PatchCore on features that two trained adaptors give.

The adaptors are in `lib.heads.adaptation`, their training in `lib.heads.adaptor_training`, the memory banks in
`lib.heads.memory_bank`. A sample's road: patches of the frozen features, adapted patches, two bank distances, their
average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib.errors import InputError
from lib.features import Features
from lib.heads import Prediction
from lib.heads.adaptation import Adaptors
from lib.heads.adaptor_training import train_adaptors
from lib.heads.checkpoints import Checkpoint
from lib.heads.memory_bank import PatchCore
from lib.heads.state import State, joined, part_of
from lib.methods import PATCHCORE_VARIANTS, AdaptorConfig, LSFAConfig
from lib.patches import PatchSet, patches_of, read_patches
from lib.reading import ReadOnAccess
from lib.training import DEFAULT_SETUP, TrainingSetup

OWN = "own"  # name of the category where adaptors are trained on it alone


def fit_adaptors(
    config: AdaptorConfig,
    features: Sequence[Features],
    seed: int,
    device: str,
    progress: bool,
    all_categories: Mapping[str, Sequence[Features]] | None,
    setup: TrainingSetup = DEFAULT_SETUP,
    checkpoint: Checkpoint | None = None,
) -> tuple[Adaptors, dict[str, list[float]]]:
    """Adaptors and their history, trained on a category or on all of them as `config.scope` says.

    Args:
        config, seed, device, progress, setup, checkpoint: as for `lib.heads.adaptor_training.train_adaptors`.
        features: normal training samples of the category.
        all_categories: those of every category by name, needed for scope "all" and for it alone.

    Raises:
        InputError: there are no training samples, or scope and `all_categories` do not go together.
    """
    if not features:
        raise InputError("LSFA: no training features; check that the category has training samples")
    if (config.scope == "all") != (all_categories is not None):
        raise InputError(f"LSFA: scope is {config.scope!r}; give all_categories for scope 'all' and for it alone")
    by_category = {OWN: features} if all_categories is None else all_categories
    patch_sets = patches_of(by_category, lambda sample: read_patches(sample, config.grid_side))
    return train_adaptors(config, patch_sets, seed, device, progress, setup, checkpoint)


class LSFA:
    """Two adaptors trained on normal samples, and one memory bank of adapted patches for each modality."""

    variants = PATCHCORE_VARIANTS

    def __init__(self, config: LSFAConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.adaptors = Adaptors(config, rgb_dim, xyz_dim, seed=0).to(device)
        self.memory = PatchCore(config, rgb_dim, xyz_dim, device)

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        validation: Sequence[Features] = (),
        all_categories: Mapping[str, Sequence[Features]] | None = None,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """History of the adaptors' training; they are initialized anew, and the banks filled with adapted patches.

        Args:
            features: normal training samples of the category.
            seed: of the first weights, the order of samples, the patches drawn and the banks' projection.
            progress: show a bar over epochs.
            validation: normal samples that set the scales of the averages.
            all_categories: training samples of every category by name, for scope "all".
            setup: how the adaptors' training is computed.
            checkpoint: where its state is kept.
        """
        self.adaptors, history = fit_adaptors(
            self.config, features, seed, self.device, progress, all_categories, setup, checkpoint
        )
        train, held_out = (ReadOnAccess(samples, self.adapted) for samples in (features, validation))
        self.memory.fit_patches(train, seed, progress, held_out)
        return history

    def adapted(self, sample: Features) -> PatchSet:
        """Adapted patch features of one sample."""
        return self.adaptors.adapt(read_patches(sample, self.config.grid_side))

    def predict(self, sample: Features, variants: Sequence[str] = PATCHCORE_VARIANTS) -> dict[str, Prediction]:
        """Predictions of one sample by modality and fusion."""
        return self.memory.predict_patches(self.adapted(sample), variants)

    def state(self) -> State:
        """The adaptors' weights and the memory banks."""
        return joined({"adaptors": self.adaptors.state_dict(), "memory": self.memory.state()})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.adaptors.load_state_dict(part_of(state, "adaptors"))
        self.adaptors.eval()
        self.memory.load_state(part_of(state, "memory"))
