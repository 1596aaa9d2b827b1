"""Tokens that another pair of extractors has already made: no network looks twice at a sample for the same tokens.

A study reads one RGB network beside several 3D networks and the other way round. Features are stored by pair, so a new
pair takes the tokens of a side from the files of a pair whose side was made with the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.data import Sample
from lib.errors import InputError
from lib.extractors import Extractor
from lib.features import Features, load_features

INTERPOLATION = ("interpolation", "moved_m")  # settings of the 3D side that its tokens do not depend on


def shared_folders(settings: dict[str, Any], others: Mapping[Path, dict[str, Any] | None]) -> dict[str, list[Path]]:
    """Folders whose features have the same tokens of a side, by "rgb" and "xyz".

    Args:
        settings: all that the features to make depend on, as `lib.feature_store.feature_settings` gives them.
        others: the same of stored features of this category, by their folder; None where it cannot be read.
    """

    def same(side: str, stored: dict[str, Any] | None) -> bool:
        return stored is not None and token_settings(stored, side) == token_settings(settings, side)

    return {side: [folder for folder, stored in others.items() if same(side, stored)] for side in ("rgb", "xyz")}


def token_settings(settings: dict[str, Any], side: str) -> dict[str, Any]:
    """The part of features' settings that decides the tokens of a side."""
    own = {name: value for name, value in settings["extractor"][side].items() if name not in INTERPOLATION}
    return {**settings, "extractor": own}


def with_shared_tokens(extractor: Extractor, folders: dict[str, list[Path]]) -> Extractor:
    """The extractor, which takes the tokens of a side from files where there are some, and makes them elsewhere.

    Args:
        extractor: makes features.
        folders: from `shared_folders`.
    """

    def rgb(sample: Sample) -> Tensor:
        found = stored_features(sample, folders["rgb"])
        return extractor.rgb(sample) if found is None else found.rgb_tokens

    def xyz(sample: Sample) -> tuple[Tensor, Tensor]:
        found = stored_features(sample, folders["xyz"])
        return extractor.xyz(sample) if found is None else (found.xyz_tokens, found.centers)

    return Extractor(rgb, xyz, extractor.interpolation, extractor.moved_m)


def stored_features(sample: Sample, folders: Sequence[Path]) -> Features | None:
    """The sample's features from the first folder that holds them whole, or None; another process may delete some."""
    for folder in folders:
        try:
            return load_features(folder / f"{sample.sample_id}.safetensors")
        except InputError:
            continue
    return None
