"""Extractors by name: what turns a prepared sample into `Features`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lib.config import check_choice
from lib.data import Sample
from lib.extractors.handcrafted import HandcraftedExtractor
from lib.features import Features


class Extractor(Protocol):
    """What every extractor offers.

    Attributes:
        name: its key in `EXTRACTORS` and in profiles.
        config: its settings, a dataclass; records keep them.
    """

    name: str
    config: Any

    @property
    def rgb_dim(self) -> int:
        """Channels of the RGB tokens."""
        ...

    @property
    def xyz_dim(self) -> int:
        """Channels of the 3D tokens."""
        ...

    def __call__(self, sample: Sample) -> Features:
        """Features of one prepared sample."""
        ...


EXTRACTORS: dict[str, Callable[[], Extractor]] = {HandcraftedExtractor.name: HandcraftedExtractor}


def get_extractor(name: str) -> Extractor:
    """The extractor of that name with its default settings.

    Raises:
        InputError: no extractor has that name; the line lists those that exist.
    """
    check_choice("extractor", name, tuple(EXTRACTORS))
    return EXTRACTORS[name]()
