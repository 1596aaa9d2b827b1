"""Nearest-neighbor and blind baselines against loops and hand-made banks."""

from __future__ import annotations

import pytest
import torch

from lib.config import BlindConfig, NearestNeighborConfig
from lib.grids import gaussian_blur
from lib.heads import memory_bank
from lib.heads.blind import Blind
from lib.heads.memory_bank import NearestNeighbor, fill_cells, nearest_distances, patches
from tests.factories import make_features


def nearest(queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    return nearest_distances(queries, bank, {"all": slice(None)}, ("all",))["all"]


def test_nearest_distance_matches_the_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "QUERIES_PER_BLOCK", 7)
    monkeypatch.setattr(memory_bank, "BANK_ROWS_PER_BLOCK", 4)
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(300, 5, generator=generator), torch.randn(31, 5, generator=generator)
    slow = torch.stack([min((query - row).norm() for row in bank) for query in queries])
    torch.testing.assert_close(nearest(queries, bank), slow)
    parts = {"rgb": slice(0, 2), "xyz": slice(2, 5)}
    found = nearest_distances(queries, bank, parts, ("xyz", "concat"))
    torch.testing.assert_close(found["concat"], slow)
    torch.testing.assert_close(found["xyz"], nearest(queries[:, 2:], bank[:, 2:]))


def test_a_query_in_the_bank_is_at_distance_zero_even_far_from_the_origin() -> None:
    bank = torch.randn(13, 3, generator=torch.Generator().manual_seed(1)) + 1000
    assert nearest(bank, bank).eq(0).all()


def test_training_sample_with_the_whole_bank_scores_zero() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=None, blur_sigma_px=1.0), *dims(samples[0]))
    head.fit(samples, seed=0)
    for prediction in head.predict(samples[1]).values():
        assert prediction.image_score == pytest.approx(0.0, abs=1e-6)
    assert head.predict(make_features(seed=9))["concat"].image_score > 0


def test_modalities_see_only_their_own_columns() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=None), *dims(samples[0]))
    head.fit(samples, seed=0)
    queries, _ = patches(samples[0])
    widths = [len(range(*cut.indices(head.bank.shape[1]))) for cut in head.parts.values()]
    assert sum(widths) == head.bank.shape[1] == queries.shape[1]
    changed = make_features(seed=0, xyz_offset=3.0)
    before, after = head.predict(samples[0]), head.predict(changed)
    assert torch.equal(before["rgb"].anomaly_map, after["rgb"].anomaly_map)
    assert after["xyz"].image_score > before["xyz"].image_score


def test_late_fusion_is_the_mean_of_the_scaled_maps() -> None:
    samples = [make_features(seed=s) for s in range(4)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=29), *dims(samples[0]))
    head.fit(samples[:3], seed=2)
    found = head.predict(samples[3])
    expected = sum(found[name].anomaly_map / head.late_scale[name] for name in ("rgb", "xyz")) / 2
    torch.testing.assert_close(found["late"].anomaly_map, expected)


def test_both_modalities_weigh_alike_in_the_concatenation() -> None:
    sample = make_features(seed=0)
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=1), *dims(sample))
    head.fit([sample], seed=3)
    queries, cells = patches(sample)
    found = nearest_distances(queries, head.bank, head.parts, ("rgb", "xyz", "concat"))
    squares = {name: distances.square() for name, distances in found.items()}
    torch.testing.assert_close(squares["concat"], squares["rgb"] + squares["xyz"])
    (kept,) = squares["concat"].eq(0).nonzero().flatten()
    for name, feature_map in zip(("rgb", "xyz"), sample.on_grid(7)[:2], strict=True):
        rows = feature_map[:, cells].T
        torch.testing.assert_close(squares[name], (rows - rows[kept]).square().sum(dim=1) / rows.shape[1])


def test_map_is_cut_to_the_object_before_the_blur() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    maps = {}
    for sigma_px in (0.1, 2.0):
        head = NearestNeighbor(NearestNeighborConfig(blur_sigma_px=sigma_px), *dims(samples[0]))
        head.fit(samples[:2], seed=0)
        maps[sigma_px] = head.predict(samples[2], ("rgb",))["rgb"].anomaly_map
    assert maps[0.1][~samples[2].foreground].eq(0).all() and maps[0.1][samples[2].foreground].gt(0).all()
    torch.testing.assert_close(maps[2.0], gaussian_blur(maps[0.1], 2.0))
    assert maps[2.0][~samples[2].foreground].max() > 0


def test_late_scale_is_the_mean_distance_from_whole_held_out_samples_to_the_others() -> None:
    samples = [make_features(seed=s) for s in range(10)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=5), *dims(samples[0]))
    head.fit(samples, seed=0)
    rows = [patches(sample)[0] for sample in samples]
    held_out, others = torch.cat([rows[0], rows[8]]), torch.cat([*rows[1:8], rows[9]])
    for name, columns in {"rgb": slice(0, 3), "xyz": slice(3, 8)}.items():
        expected = torch.cdist(held_out[:, columns].double(), others[:, columns].double()).min(dim=1).values.mean()
        assert head.late_scale[name] == pytest.approx(float(expected), rel=1e-5)
    assert head.late_scale["rgb"] != pytest.approx(head.late_scale["xyz"], rel=0.01)


def test_late_scale_of_a_single_sample_is_one() -> None:
    sample = make_features(seed=0)
    head = NearestNeighbor(NearestNeighborConfig(), *dims(sample))
    head.fit([sample], seed=0)
    assert head.late_scale == {"rgb": 1.0, "xyz": 1.0}


def test_bank_draw_depends_on_the_seed_alone() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    banks = []
    for seed in (5, 5, 6):
        head = NearestNeighbor(NearestNeighborConfig(bank_rows=11), *dims(samples[0]))
        head.fit(samples, seed=seed)
        banks.append(head.bank)
    assert torch.equal(banks[0], banks[1]) and not torch.equal(banks[0], banks[2])


def test_cells_beside_the_object_take_the_mean_of_their_neighbors() -> None:
    cells = torch.tensor([[True, True, False], [False, False, False]])
    filled = fill_cells(torch.tensor([2.0, 4.0]), cells)
    torch.testing.assert_close(filled, torch.tensor([[2.0, 4.0, 4.0], [3.0, 3.0, 4.0]]))


def test_blind_head_is_the_outline() -> None:
    sample = make_features(seed=0)
    prediction = Blind(BlindConfig(), *dims(sample)).predict(sample)["outline"]
    assert torch.equal(prediction.anomaly_map > 0, sample.foreground) and prediction.image_score == 1.0


def dims(sample: object) -> tuple[int, int]:
    return sample.rgb_tokens.shape[0], sample.xyz_tokens.shape[1]
