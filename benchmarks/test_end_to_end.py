"""CFM from raw files in the MVTec 3D-AD layout, 800 x 800 pixels, to score and map, preparation included."""

from __future__ import annotations

import pytest

from lib.data import list_samples, read_sample
from lib.preparation import PREPARATION_DEFAULT, prepare_sample
from tests.fixtures_mvtec import write_category

SIDE_PX = 800  # of MVTec 3D-AD's larger images
ROUNDS = 5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of one sample."""
    root = tmp_path_factory.mktemp("raw")
    write_category(root, train=1, validation=1, test_each=1, height=SIDE_PX, width=SIDE_PX)
    return list_samples(root, "dome", "train")[0]


def test_read(benchmark, files):
    benchmark.pedantic(lambda: read_sample(files), rounds=ROUNDS, warmup_rounds=1)


def test_prepare(benchmark, files):
    raw = read_sample(files)
    benchmark.pedantic(lambda: prepare_sample(raw, PREPARATION_DEFAULT, 0), rounds=ROUNDS, warmup_rounds=1)


def test_from_files(benchmark, files, pair, head):
    def work():
        prepared = prepare_sample(read_sample(files), PREPARATION_DEFAULT, 0)
        return prepared, head.predict(pair(prepared))["product"]

    prepared, predicted = benchmark.pedantic(work, rounds=3, warmup_rounds=1)
    benchmark.extra_info["foreground pixels"] = int(prepared.foreground.sum())
    assert predicted.image_score > 0
