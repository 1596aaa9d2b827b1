"""Fixtures of the benchmarks: what is built once."""

from __future__ import annotations

import pytest

from benchmarks.made_up import sample, spec
from lib.extractors import Extractor, get_extractor
from lib.features import Features
from lib.heads.cfm import CFM
from lib.instances import CFM_PAPER


@pytest.fixture(scope="session")
def pair() -> Extractor:
    """The papers' extractors with random weights."""
    return get_extractor(spec("full"))


@pytest.fixture(scope="session")
def features(pair: Extractor) -> Features:
    """Features of the made-up sample."""
    return pair(sample())


@pytest.fixture(scope="session")
def head(pair: Extractor) -> CFM:
    """CFM with untrained networks of the paper's size."""
    return CFM(CFM_PAPER, pair.rgb_dim, pair.xyz_dim)
