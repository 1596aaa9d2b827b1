"""The mean of 3D features over 3 x 3 pixels as shares of tokens, against the dense maps that the papers' code makes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lib.heads.cfm import CFM
from lib.heads.mixed_rows import pixel_rows
from lib.methods import CFMConfig
from lib.pixel_mean import averaged_xyz, axis_means
from tests.factories import make_features

SMALL = CFMConfig(hidden_dim=7, num_epochs=2, batch_size=2, xyz_mean_px=3)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (23, 31)])
def test_averaged_pixels_are_those_of_the_dense_map(height: int, width: int) -> None:
    sample = make_features(seed=3, height=height, width=width)
    dense = torch.zeros(height * width, sample.xyz_tokens.shape[1])
    dense[sample.pixel_index] = sample.at_pixels()[1]
    means = F.avg_pool2d(dense.T.reshape(1, -1, height, width), 3, stride=1)
    expected = F.adaptive_avg_pool2d(means, (height, width))[0].flatten(1).T[sample.pixel_index]
    torch.testing.assert_close(averaged_xyz(sample, 3).at_pixels()[1], expected)


def test_by_hand_on_one_axis() -> None:
    """Five pixels, three means, back to five: the outer cells see one mean, the others parts of two."""
    expected = torch.tensor([[2, 2, 2, 0, 0], [1, 2, 2, 1, 0], [0, 2, 2, 2, 0], [0, 1, 2, 2, 1], [0, 0, 2, 2, 2]]) / 6
    torch.testing.assert_close(axis_means(5, 5).T, expected)


def test_shares_sum_to_one_and_a_zero_token_stands_for_what_is_off_the_object() -> None:
    sample = make_features(seed=1)
    averaged = averaged_xyz(sample, 3)
    torch.testing.assert_close(averaged.weights.sum(dim=1), torch.ones(len(sample.pixel_index)))
    assert not averaged.xyz_tokens[-1].any() and len(averaged.xyz_tokens) == len(sample.xyz_tokens) + 1
    row, column = sample.pixel_index // 28, sample.pixel_index % 28
    inner = (row > 6) & (row < 20) & (column > 8) & (column < 22)
    of_zeros = (averaged.weights * (averaged.neighbors == len(sample.xyz_tokens))).sum(dim=1)
    assert float(of_zeros[inner].abs().max()) < 1e-5 and float(of_zeros[~inner].max()) > 0.3


def test_without_a_window_nothing_changes() -> None:
    sample = make_features(seed=1)
    assert averaged_xyz(sample, None) is sample


def test_a_head_reads_averaged_features_in_training_and_in_prediction() -> None:
    samples = [make_features(seed) for seed in range(3)]
    averaged = [averaged_xyz(sample, 3) for sample in samples]
    head, reference, plain = (
        CFM(CFMConfig(hidden_dim=7, num_epochs=2, batch_size=2, xyz_mean_px=window), 3, 5) for window in (3, None, None)
    )
    assert head.fit(samples, seed=0) == reference.fit(averaged, seed=0) != plain.fit(samples, seed=0)
    for found, expected in zip(head.discrepancies(samples[0]), reference.discrepancies(averaged[0]), strict=True):
        assert torch.equal(found, expected)


def test_samples_whose_pixels_mix_different_numbers_of_tokens_make_one_batch() -> None:
    samples = [averaged_xyz(make_features(seed, groups=groups), 3) for seed, groups in ((1, 3), (2, 40))]
    assert samples[0].neighbors.shape[1] < samples[1].neighbors.shape[1]
    drawn = [torch.tensor([0, 7, 19]), None]
    for part, rows in enumerate(pixel_rows(samples, drawn)):
        alone = [sample.at_pixels(index)[part] for sample, index in zip(samples, drawn, strict=True)]
        torch.testing.assert_close(rows.read(), torch.cat(alone))


def test_features_that_change_from_epoch_to_epoch_are_averaged_each_time() -> None:
    class Recomputed(list):
        """Counts how often a sample is made."""

        epoch, reads = -1, 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __getitem__(self, index: int):
            self.reads += 1
            return super().__getitem__(index)

    samples = Recomputed(make_features(seed) for seed in range(3))
    CFM(SMALL, 3, 5).fit(samples, seed=0)
    assert samples.epoch == 1 and samples.reads >= 2 * 3
