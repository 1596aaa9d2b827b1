"""LSFA's head: PatchCore on adapted patches, its variants, scopes, and what a defect does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from lib.errors import InputError
from lib.features import Features
from lib.heads import Prediction, lsfa, patch_bank
from lib.heads.adaptation import Adaptors
from lib.heads.lsfa import LSFA
from lib.heads.memory_bank import PatchCore
from lib.methods import PATCHCORE_VARIANTS, LSFAConfig
from lib.patches import PatchSet, read_patches
from tests.factories import make_features

RGB_DIM, XYZ_DIM = 3, 5
TINY = LSFAConfig(
    grid_side=7,
    coreset_fraction=0.3,
    blur_sigma_px=1.0,
    num_heads=1,
    projection_dim=4,
    local_bank_rows=50,
    global_bank_rows=3,
    num_epochs=2,
    batch_size=2,
)


def tiny(**changes: Any) -> LSFAConfig:
    return LSFAConfig(**{**vars(TINY), **changes})


def normal(seeds: Sequence[int]) -> list[Features]:
    return [make_features(seed=seed) for seed in seeds]


def fitted(config: LSFAConfig, seed: int = 0, **further: Any) -> LSFA:
    head = LSFA(config, RGB_DIM, XYZ_DIM)
    head.fit(normal(range(4)), seed, validation=normal((10, 11, 12)), **further)
    return head


def same(first: Mapping[str, Prediction], second: Mapping[str, Prediction]) -> bool:
    pairs = [(first[name], second[name]) for name in first] if first.keys() == second.keys() else []
    same_scores = [a.image_score == b.image_score for a, b in pairs]
    return bool(pairs) and all(same_scores) and all(torch.equal(a.anomaly_map, b.anomaly_map) for a, b in pairs)


@pytest.fixture(scope="module")
def head() -> LSFA:
    return fitted(TINY)


@pytest.mark.parametrize("image_score", ["patch", "map"])
def test_is_patchcore_on_adapted_patches(image_score: str) -> None:
    head = fitted(tiny(image_score=image_score, reweight_rows=None if image_score == "map" else 3))
    memory = PatchCore(head.config, RGB_DIM, XYZ_DIM)

    def adapted(sample: Features) -> PatchSet:
        return head.adaptors.adapt(read_patches(sample, 7))

    memory.fit_patches(list(map(adapted, normal(range(4)))), 0, validation=list(map(adapted, normal((10, 11, 12)))))
    sample = make_features(seed=20)
    assert same(head.predict(sample), memory.predict_patches(adapted(sample)))


def test_without_epochs_the_adaptors_are_the_first_ones() -> None:
    head, sample = fitted(tiny(num_epochs=0), seed=5), make_features(seed=20)
    expected = Adaptors(head.config, RGB_DIM, XYZ_DIM, seed=5).adapt(read_patches(sample, 7))
    found = head.adapted(sample)
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.xyz, expected.xyz)


def test_training_changes_what_the_banks_hold() -> None:
    first, trained = fitted(tiny(num_epochs=0)), fitted(TINY)
    for name, dim in (("rgb", RGB_DIM), ("xyz", XYZ_DIM)):
        assert first.memory.banks[name].shape == trained.memory.banks[name].shape
        assert trained.memory.banks[name].shape[1] == dim
        assert not torch.allclose(first.memory.banks[name], trained.memory.banks[name], atol=1e-3)


def test_a_defect_of_the_shape_raises_every_score_but_that_of_rgb(head: LSFA) -> None:
    before, after = (head.predict(make_features(seed=20, xyz_offset=offset)) for offset in (0.0, 3.0))
    assert same({"rgb": before["rgb"]}, {"rgb": after["rgb"]})
    inside = make_features(seed=20).foreground
    for name in ("xyz", "average", "plain_average", "svm"):
        assert after[name].image_score > before[name].image_score
        assert after[name].anomaly_map[inside].mean() > before[name].anomaly_map[inside].mean()


def test_the_plain_average_is_of_both_maps_and_both_scores(head: LSFA) -> None:
    found = head.predict(make_features(seed=20))
    expected = (found["rgb"].anomaly_map + found["xyz"].anomaly_map) / 2
    torch.testing.assert_close(found["plain_average"].anomaly_map, expected)
    scores = [found[name].image_score for name in ("rgb", "xyz")]
    assert found["plain_average"].image_score == pytest.approx(sum(scores) / 2)


def test_a_training_sample_is_normal_to_banks_that_hold_all() -> None:
    head = fitted(tiny(coreset_fraction=1.0))
    for prediction in head.predict(make_features(seed=2), ("rgb", "xyz", "plain_average")).values():
        assert prediction.image_score == pytest.approx(0, abs=1e-5) and prediction.anomaly_map.max() < 1e-5


def test_each_variant_is_the_same_alone_and_among_others(head: LSFA) -> None:
    sample = make_features(seed=20)
    together = head.predict(sample)
    assert tuple(together) == head.variants == PATCHCORE_VARIANTS
    for name in PATCHCORE_VARIANTS:
        assert same(head.predict(sample, (name,)), {name: together[name]})
    for prediction in together.values():
        assert prediction.anomaly_map.shape == sample.foreground.shape and torch.isfinite(prediction.anomaly_map).all()


def test_unknown_variants_are_refused(head: LSFA) -> None:
    with pytest.raises(InputError, match="variant 'late' is unknown; choose one of rgb, xyz, average"):
        head.predict(make_features(seed=20), ("late",))


def test_the_standardized_average_needs_validation_samples() -> None:
    head = LSFA(TINY, RGB_DIM, XYZ_DIM)
    head.fit(normal(range(3)), seed=0)
    with pytest.raises(InputError, match="'average' needs validation samples"):
        head.predict(make_features(seed=20), ("average",))
    assert head.predict(make_features(seed=20), ("plain_average",))


def test_training_needs_training_samples() -> None:
    with pytest.raises(InputError, match="LSFA: no training features; check that the category has training samples"):
        LSFA(TINY, RGB_DIM, XYZ_DIM).fit([], seed=0)


def test_a_run_depends_on_its_seed_alone() -> None:
    sample = make_features(seed=20)
    heads = [LSFA(tiny(patches_per_image=11), RGB_DIM, XYZ_DIM) for _ in range(2)]
    first, again = (head.fit(normal(range(4)), seed=3, validation=normal((10, 11))) for head in heads)
    assert first == again and same(*(head.predict(sample) for head in heads))
    refitted = heads[0].fit(normal(range(4)), seed=3, validation=normal((10, 11)))
    assert refitted == first and same(*(head.predict(sample) for head in heads))
    other = heads[0].fit(normal(range(4)), seed=4, validation=normal((10, 11)))
    assert other != first and not same(*(head.predict(sample) for head in heads))


def test_the_banks_projection_is_drawn_under_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    monkeypatch.setattr(
        patch_bank, "project_tables", lambda tables, eps, seed: seeds.append(seed) or torch.cat(list(tables))
    )
    fitted(TINY, seed=5)
    assert seeds == [5, 5]


def test_history_names_losses_ranks_and_scales() -> None:
    history = LSFA(TINY, RGB_DIM, XYZ_DIM).fit(normal(range(4)), seed=0)
    watched = dict.fromkeys(("rank_rgb", "rank_xyz", "scale_rgb", "scale_xyz"), 3)
    assert {name: len(values) for name, values in history.items()} == {"la": 4, "ga": 4, "lc": 3, "gc": 3, **watched}


def test_no_grid_side_is_the_grid_of_the_rgb_tokens() -> None:
    sample = make_features(seed=20)
    assert same(*(fitted(tiny(grid_side=side)).predict(sample) for side in (7, None)))
    assert fitted(tiny(grid_side=4)).adapted(sample).cells.shape == (4, 4)


class TestScope:
    def test_all_needs_all_categories_and_category_takes_none(self) -> None:
        for config, further in ((tiny(scope="all"), {}), (TINY, {"all_categories": {"peach": normal((1,))}})):
            with pytest.raises(InputError, match=f"scope is '{config.scope}'; give all_categories for scope 'all'"):
                LSFA(config, RGB_DIM, XYZ_DIM).fit(normal(range(2)), seed=0, **further)

    def test_all_trains_on_every_category_and_keeps_banks_of_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen, real = {}, lsfa.train_adaptors

        def recorded(config: LSFAConfig, patch_sets: Mapping[str, Sequence[PatchSet]], *rest: Any) -> Any:
            seen.update({name: [patch_set.sample_id for patch_set in sets] for name, sets in patch_sets.items()})
            assert all(patch_set.cells.shape == (4, 4) for sets in patch_sets.values() for patch_set in sets)
            return real(config, patch_sets, *rest)

        monkeypatch.setattr(lsfa, "train_adaptors", recorded)
        head = LSFA(tiny(scope="all", grid_side=4), RGB_DIM, XYZ_DIM)
        by_category = {"cable": normal(range(4)), "peach": normal((7, 8))}
        head.fit(by_category["cable"], seed=0, all_categories=by_category)
        assert seen == {name: [sample.sample_id for sample in samples] for name, samples in by_category.items()}
        patches = torch.cat([head.adapted(sample).rgb for sample in by_category["cable"]])
        bank = head.memory.banks["rgb"]
        assert len(bank) == int(0.3 * len(patches)) and all((patches == row).all(dim=1).any() for row in bank)

    def test_one_pair_of_adaptors_serves_every_category(self) -> None:
        by_category = {"cable": normal(range(4)), "peach": normal((7, 8, 9))}
        heads = {name: LSFA(tiny(scope="all"), RGB_DIM, XYZ_DIM) for name in by_category}
        for name, head in heads.items():
            head.fit(by_category[name], seed=0, all_categories=by_category)
        first, second = (head.adaptors.state_dict() for head in heads.values())
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert heads["cable"].memory.banks["rgb"].shape != heads["peach"].memory.banks["rgb"].shape

    def test_category_alone_in_scope_all_is_scope_category(self) -> None:
        alone = fitted(tiny(scope="all"), all_categories={"cable": normal(range(4))})
        assert same(alone.predict(make_features(seed=20)), fitted(TINY).predict(make_features(seed=20)))
