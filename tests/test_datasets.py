"""What is known of the real datasets agrees with what the papers say of them."""

from __future__ import annotations

import dataclasses

import pytest

from lib.datasets import DATASETS, find_dataset
from lib.errors import InputError
from lib.published import published_table


def test_sums_are_those_of_the_paper() -> None:
    counts = [dataclasses.astuple(found) for found in find_dataset("mvtec3d").counts.values()]
    train, validation, good, anomalous = (sum(column) for column in zip(*counts, strict=True))
    assert (train, validation, good, anomalous) == (2656, 294, 249, 948)  # CFM sec. 4
    eyecandies = find_dataset("eyecandies").counts.values()
    assert [sum(c.train for c in eyecandies), sum(c.test_good + c.test_anomalous for c in eyecandies)] == [10_000, 500]


@pytest.mark.parametrize("name", DATASETS)
def test_categories_are_those_of_the_published_tables(name: str) -> None:
    dataset = find_dataset(name)
    table = published_table(name, "I-AUROC")
    columns = {plain(text) for text in table.columns} - {"mean", "source", "kind"}
    assert columns == {plain(text) for text in dataset.categories}
    assert dataset.sizes_px.keys() == dataset.counts.keys()
    assert all(size % 100 == 0 for sizes in find_dataset("mvtec3d").sizes_px.values() for size in sizes)


def plain(text: str) -> str:
    """Letters of a name, in lower case."""
    return text.replace("_", "").replace(" ", "").lower()


@pytest.mark.parametrize("name", DATASETS)
def test_every_category_lies_in_one_archive(name: str) -> None:
    dataset = find_dataset(name)
    held = [category for archive in dataset.archives for category in archive.categories]
    assert sorted(held) == sorted(dataset.categories)
    for archive in dataset.archives:
        assert archive.urls and all(url.startswith("https://") for url in archive.urls)
        assert archive.checksum == "" or archive.checksum.partition(":")[0] in ("md5", "sha256")


def test_an_unknown_dataset_is_refused() -> None:
    with pytest.raises(InputError, match="mvtec3d, eyecandies"):
        find_dataset("visa")
