"""LSFA's adaptors: the layer by hand, where gradients go, when each loss counts, banks, schedule, collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.errors import InputError
from lib.heads import adaptor_training
from lib.heads.adaptation import (
    Adapted,
    Adaptors,
    Banks,
    instance_vectors,
    local_alignment,
    mean_compactness,
    projected_contrast,
    training_losses,
)
from lib.heads.adaptor_training import adapt_for_training, train_adaptors, warmup_cosine
from lib.heads.training_watch import CURVE_POINTS, CollapseWatch, thinned
from lib.methods import LSFAConfig
from lib.patches import PatchSet

RGB_DIM, XYZ_DIM = 6, 10
LOSSES = ("la", "ga", "lc", "gc")
COS = 0.5 + 0.5 * math.cos(math.pi / 4)
SMALL = {"num_heads": 1, "projection_dim": 5, "local_bank_rows": 29, "global_bank_rows": 3, "batch_size": 2}


def config_of(**changes: Any) -> LSFAConfig:
    return LSFAConfig(**{**SMALL, "num_epochs": 3, **changes})


def only(*names: str) -> dict[str, float]:
    """Weights of the four losses: 1 for those named, 0 for the others."""
    return {f"weight_{name}": float(name in names) for name in LOSSES}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_patch_set(seed: int, num_patches: int = 11) -> PatchSet:
    """Patches of one made-up sample, whose 3D features are a fixed function of the RGB ones."""
    rgb = drawn(num_patches, RGB_DIM, seed=seed)
    xyz = (rgb @ drawn(RGB_DIM, XYZ_DIM, seed=99)).tanh() + 0.5
    cells = torch.ones(1, num_patches, dtype=torch.bool)
    return PatchSet(rgb, xyz, cells, torch.ones(2, num_patches, dtype=torch.bool), f"train/good/{seed:03d}")


def make_adaptors(config: LSFAConfig, seed: int = 0) -> Adaptors:
    return Adaptors(config, RGB_DIM, XYZ_DIM, seed)


def make_banks(config: LSFAConfig, *names: str) -> dict[str, Banks]:
    return {name: Banks(config, RGB_DIM, XYZ_DIM, torch.device("cpu")) for name in names}


def adapted_sample(adaptors: Adaptors, config: LSFAConfig, seed: int, category: str = "own") -> Adapted:
    return adapt_for_training(adaptors, category, make_patch_set(seed), config, torch.Generator().manual_seed(seed))


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each training step met: the batch, copies of the banks' rows before it, and its losses."""
    seen, real = [], adaptor_training.training_losses

    def recorded(adaptors: Adaptors, batch: Sequence[Adapted], banks: Mapping[str, Banks], *rest: Any) -> Any:
        held = {name: bank.rgb_local.oldest_first() for name, bank in banks.items()}
        losses = real(adaptors, batch, banks, *rest)
        seen.append({"batch": batch, "held": held, "losses": losses, "banks": banks, "step": rest[-1]})
        return losses

    monkeypatch.setattr(adaptor_training, "training_losses", recorded)
    return seen


class TestAdaptors:
    @pytest.mark.parametrize("num_heads", [1, 2])
    def test_each_is_one_pre_norm_transformer_layer(self, num_heads: int) -> None:
        adaptors = make_adaptors(config_of(num_heads=num_heads, mlp_ratio=3))
        patch_set = make_patch_set(seed=1)
        found = adaptors.adapt(patch_set)
        for name in ("rgb", "xyz"):
            weights = {key: value.double() for key, value in getattr(adaptors, f"{name}_adaptor").state_dict().items()}
            expected = transformer_layer(getattr(patch_set, name).double(), weights, num_heads)
            torch.testing.assert_close(getattr(found, name).double(), expected, rtol=1e-5, atol=1e-5)
        assert found.sample_id == patch_set.sample_id and torch.equal(found.cells, patch_set.cells)

    def test_sizes_are_those_of_the_released_code(self) -> None:
        adaptors = Adaptors(LSFAConfig(), 768, 1152, seed=0)
        shapes = {name: tuple(value.shape) for name, value in adaptors.named_parameters()}
        assert shapes["rgb_adaptor.mlp.fc1.weight"] == (4 * 768, 768)
        assert shapes["xyz_adaptor.attn.qkv.weight"] == (3 * 1152, 1152)
        assert shapes["rgb_projection.weight"] == (512, 768) and shapes["xyz_projection.weight"] == (512, 1152)
        assert adaptors.rgb_adaptor.attn.num_heads == adaptors.xyz_adaptor.attn.num_heads == 12

    def test_patches_have_no_order_but_their_rows(self) -> None:
        adaptors, patch_set = make_adaptors(config_of()), make_patch_set(seed=1)
        order = torch.randperm(len(patch_set.rgb), generator=torch.Generator().manual_seed(2))
        for rows, shuffled in zip(
            adaptors(patch_set.rgb, patch_set.xyz), adaptors(patch_set.rgb[order], patch_set.xyz[order]), strict=True
        ):
            torch.testing.assert_close(rows[order], shuffled)

    def test_modalities_do_not_meet(self) -> None:
        adaptors, patch_set = make_adaptors(config_of()), make_patch_set(seed=1)
        rgb, xyz = adaptors(patch_set.rgb, patch_set.xyz)
        same_rgb, other_xyz = adaptors(patch_set.rgb, patch_set.xyz + 1 + patch_set.xyz.square())
        assert torch.equal(rgb, same_rgb) and not torch.allclose(xyz, other_xyz)

    def test_first_weights_depend_on_the_seed_alone(self) -> None:
        before = torch.random.get_rng_state()
        first, again, other = (make_adaptors(config_of(), seed) for seed in (3, 3, 4))
        assert same_weights(first, again) and not same_weights(first, other)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("num_heads", [3, 5, 12])  # 6 and 10 channels: the third fits none, the others one
    def test_heads_that_do_not_divide_are_refused(self, num_heads: int) -> None:
        with pytest.raises(InputError, match=rf"num_heads is {num_heads}, which does not divide .* 6 and 10; choose"):
            make_adaptors(config_of(num_heads=num_heads))

    def test_adapted_features_can_be_learnt_from(self) -> None:
        found = make_adaptors(config_of()).adapt(make_patch_set(seed=1))
        layer = torch.nn.Linear(RGB_DIM, 2)
        layer((found.rgb - found.rgb.mean(dim=0)).contiguous()).sum().backward()
        assert layer.weight.grad is not None and not found.rgb.requires_grad


def transformer_layer(rows: Tensor, weights: dict[str, Tensor], num_heads: int) -> Tensor:
    """Rows (Q, D) float64 after attention and MLP, each normalized before and added after, patch by patch."""
    normed = torch.stack([layer_norm(row, weights["norm1.weight"], weights["norm1.bias"]) for row in rows])
    query, key, value = (normed @ weights["attn.qkv.weight"].T).chunk(3, dim=1)
    width = rows.shape[1] // num_heads
    mixed = torch.zeros_like(rows)
    for head in range(num_heads):
        cut = slice(head * width, (head + 1) * width)
        for i in range(len(rows)):
            raised = [math.exp(float(query[i, cut] @ key[j, cut]) / width**0.5) for j in range(len(rows))]
            mixed[i, cut] = sum(raised[j] / sum(raised) * value[j, cut] for j in range(len(rows)))
    rows = rows + mixed @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]
    normed = torch.stack([layer_norm(row, weights["norm2.weight"], weights["norm2.bias"]) for row in rows])
    hidden = normed @ weights["mlp.fc1.weight"].T + weights["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2  # GELU
    return rows + hidden @ weights["mlp.fc2.weight"].T + weights["mlp.fc2.bias"]


def layer_norm(row: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt() * weight + bias


def same_weights(first: Adaptors, second: Adaptors) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class TestGradient:
    @pytest.mark.parametrize("num_clusters", [1, 2])
    @pytest.mark.parametrize("negatives", ["image", "batch"])
    def test_all_losses_reach_adaptors_and_projection_heads_and_nothing_else(
        self, negatives: str, num_clusters: int
    ) -> None:
        config = config_of(negatives=negatives, num_clusters=num_clusters)
        adaptors, banks, losses = self.one_step(config)
        assert set(losses) == set(LOSSES)
        assert leaves_of(total(losses)) == set(adaptors.parameters())
        total(losses).backward()
        assert all(parameter.grad.ne(0).any() for parameter in adaptors.parameters())
        own = banks["own"]
        for bank in (own.rgb_local, own.rgb_global, own.xyz_local, own.xyz_global):
            assert not bank.rows.requires_grad and bank.rows.grad is None

    @pytest.mark.parametrize("name", ["lc", "gc"])
    def test_compactness_does_not_touch_the_projection_heads(self, name: str) -> None:
        adaptors, _, losses = self.one_step(config_of(**only(name)))
        assert set(losses) == {name}
        reached = set(adaptors.rgb_adaptor.parameters()) | set(adaptors.xyz_adaptor.parameters())
        assert leaves_of(losses[name]) == reached

    @pytest.mark.parametrize("name", ["la", "ga"])
    def test_contrast_touches_all_four_modules(self, name: str) -> None:
        adaptors, _, losses = self.one_step(config_of(**only(name)))
        assert set(losses) == {name} and leaves_of(losses[name]) == set(adaptors.parameters())

    def one_step(self, config: LSFAConfig) -> tuple[Adaptors, dict[str, Banks], dict[str, Tensor]]:
        """Losses of two samples that meet banks holding a third."""
        adaptors, banks = make_adaptors(config), make_banks(config, "own")
        banks["own"].push(adapted_sample(adaptors, config, seed=3))
        batch = [adapted_sample(adaptors, config, seed) for seed in (1, 2)]
        return adaptors, banks, training_losses(adaptors, batch, banks, config, step=0)


def leaves_of(loss: Tensor) -> set[Tensor]:
    """Every tensor that the loss's backward pass would give a gradient."""
    found, waiting, met = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        found |= {node.variable} if hasattr(node, "variable") else set()
        waiting += [before for before, _ in node.next_functions]
    return found


class TestLosses:
    @pytest.mark.parametrize("softmax", ["joint", "rows"])
    @pytest.mark.parametrize("normalize", [True, False])
    def test_contrast_sees_the_projected_rows(self, softmax: str, normalize: bool) -> None:
        config = config_of(softmax=softmax, normalize=normalize, temperature=0.3)
        adaptors, rows = make_adaptors(config), make_patch_set(seed=1)
        found = projected_contrast(adaptors, rows.rgb, rows.xyz, config)
        torch.testing.assert_close(found, logit_contrast(adaptors, rows.rgb, rows.xyz, config))

    @pytest.mark.parametrize("softmax", ["joint", "rows"])
    def test_negatives_are_of_the_image_or_of_the_batch(self, softmax: str) -> None:
        adaptors = make_adaptors(config_of())
        batch = [adapted_sample(adaptors, config_of(), seed) for seed in (1, 2, 3)]
        config = config_of(negatives="image", softmax=softmax, temperature=0.5)
        alone = [logit_contrast(adaptors, sample.rgb, sample.xyz, config) for sample in batch]
        torch.testing.assert_close(local_alignment(adaptors, batch, config), sum(alone) / 3)
        config = config_of(negatives="batch", softmax=softmax, temperature=0.5)
        rgb, xyz = torch.cat([sample.rgb for sample in batch]), torch.cat([sample.xyz for sample in batch])
        expected = logit_contrast(adaptors, rgb, xyz, config)
        torch.testing.assert_close(local_alignment(adaptors, batch, config), expected)
        assert not torch.isclose(expected, sum(alone) / 3)

    def test_global_alignment_contrasts_the_samples_of_the_batch(self) -> None:
        config = config_of(**only("ga"), temperature=0.5)
        adaptors = make_adaptors(config)
        batch = [adapted_sample(adaptors, config, seed) for seed in (1, 2, 3)]
        rgb, xyz = (torch.stack([getattr(s, name).mean(dim=0) for s in batch]) for name in ("rgb", "xyz"))
        found = training_losses(adaptors, batch, make_banks(config, "own"), config, step=0)
        torch.testing.assert_close(found, {"ga": logit_contrast(adaptors, rgb, xyz, config)})

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize(
        ("level", "fields"), [("local", ("rgb", "xyz")), ("global", ("rgb_instances", "xyz_instances"))]
    )
    def test_compactness_adds_both_modalities(self, reduction: str, level: str, fields: tuple[str, str]) -> None:
        config = config_of(num_clusters=2)
        adaptors, banks = make_adaptors(config), make_banks(config, "own")
        banks["own"].push(adapted_sample(adaptors, config, seed=5))
        batch = [adapted_sample(adaptors, config, seed) for seed in (1, 2)]
        expected = 0.0
        for modality, field in zip(("rgb", "xyz"), fields, strict=True):
            bank = getattr(banks["own"], f"{modality}_{level}").rows
            rows = [row for sample in batch for row in getattr(sample, field).detach()]
            distances = [min(float((row - kept).norm()) for kept in bank) for row in rows]
            expected += sum(distances) / (len(distances) if reduction == "mean" else 1)
        found = mean_compactness(batch, banks, fields, level, reduction)
        assert float(found.detach()) == pytest.approx(expected, rel=1e-5)

    def test_a_sample_meets_the_banks_of_its_own_category_alone(self) -> None:
        config = config_of(**only("lc", "gc"))
        adaptors, banks = make_adaptors(config), make_banks(config, "cable", "peach")
        batch = [adapted_sample(adaptors, config, 1, "cable"), adapted_sample(adaptors, config, 2, "peach")]
        assert training_losses(adaptors, batch, banks, config, step=0) == {}
        banks["cable"].push(batch[0])  # the cable's bank holds the very sample, the peach's nothing
        assert values_of(training_losses(adaptors, batch, banks, config, step=0)) == {"lc": 0.0, "gc": 0.0}
        banks["peach"].push(batch[1])
        assert values_of(training_losses(adaptors, batch, banks, config, step=0)) == {"lc": 0.0, "gc": 0.0}
        swapped = {"cable": banks["peach"], "peach": banks["cable"]}
        assert min(values_of(training_losses(adaptors, batch, swapped, config, step=0)).values()) > 0.1


def values_of(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def logit_contrast(adaptors: Adaptors, rgb: Tensor, xyz: Tensor, config: LSFAConfig) -> Tensor:
    """The contrast from the whole table of logits."""
    first, second = adaptors.rgb_projection(rgb), adaptors.xyz_projection(xyz)
    if config.normalize:
        first = first / first.norm(dim=1, keepdim=True)
        second = second / second.norm(dim=1, keepdim=True)
    logits = first @ second.T / config.temperature
    if config.softmax == "joint":
        return -logits.flatten().log_softmax(dim=0).view_as(logits).diagonal().mean()
    own = torch.arange(len(logits))
    return 2 * config.temperature * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


class TestInstances:
    def test_one_cluster_is_the_mean(self) -> None:
        rows = make_patch_set(seed=1)
        instances = instance_vectors(rows.rgb, rows.xyz, 1, torch.Generator())
        for found, expected in zip(instances, (rows.rgb, rows.xyz), strict=True):
            torch.testing.assert_close(found, expected.mean(dim=0)[None])

    def test_two_clusters_are_those_of_rgb_for_both_modalities(self) -> None:
        rgb, xyz = drawn(13, RGB_DIM, seed=1), drawn(13, XYZ_DIM, seed=2)
        is_far = torch.tensor([True, False, False, True, False] * 2 + [True] * 3)
        rgb[is_far] += 50
        xyz[::2] += 80  # clusters of another kind, which must not matter
        found_rgb, found_xyz = instance_vectors(rgb, xyz, 2, torch.Generator())
        order = found_rgb[:, 0].argsort()
        torch.testing.assert_close(found_rgb[order], torch.stack([rgb[~is_far].mean(dim=0), rgb[is_far].mean(dim=0)]))
        torch.testing.assert_close(found_xyz[order], torch.stack([xyz[~is_far].mean(dim=0), xyz[is_far].mean(dim=0)]))

    def test_more_clusters_than_patches_are_the_patches(self) -> None:
        rows = make_patch_set(seed=1, num_patches=3)
        rgb, xyz = instance_vectors(rows.rgb, rows.xyz, 7, torch.Generator())
        order, expected = rgb[:, 0].argsort(), rows.rgb[:, 0].argsort()
        torch.testing.assert_close(rgb[order], rows.rgb[expected])
        torch.testing.assert_close(xyz[order], rows.xyz[expected])

    @pytest.mark.filterwarnings("ignore:Number of distinct clusters")
    def test_fewer_different_patches_than_clusters_are_finite(self) -> None:
        for seed in range(10):
            rgb = drawn(3, RGB_DIM, seed=seed)[[0, 0, 1, 2, 0, 1, 0, 2, 2, 0]]
            found = instance_vectors(rgb, drawn(10, XYZ_DIM, seed=seed + 50), 6, torch.Generator())
            assert all(torch.isfinite(rows).all() for rows in found)

    def test_gradient_flows_through_the_means(self) -> None:
        rgb, xyz = drawn(9, RGB_DIM, seed=1).requires_grad_(), drawn(9, XYZ_DIM, seed=2).requires_grad_()
        for rows in instance_vectors(rgb, xyz, 2, torch.Generator()):
            rows.sum().backward()
        for rows in (rgb, xyz):
            shares = rows.grad[:, 0]  # one over the size of the patch's cluster
            assert float(shares.sum()) == pytest.approx(2) and torch.equal(rows.grad, shares[:, None].expand_as(rows))

    def test_are_of_all_patches_even_where_few_are_drawn(self) -> None:
        config = config_of(patches_per_image=4)
        adaptors, patch_set = make_adaptors(config), make_patch_set(seed=1)
        sample = adapted_sample(adaptors, config, seed=1)
        rgb, xyz = adaptors(patch_set.rgb, patch_set.xyz)
        torch.testing.assert_close(sample.rgb_instances[0], rgb.mean(dim=0))
        torch.testing.assert_close(sample.xyz_instances[0], xyz.mean(dim=0))
        distances, source = torch.cdist(sample.rgb, rgb).min(dim=1)
        assert len(sample.rgb) == len(source.unique()) == 4 and distances.max() < 1e-3
        torch.testing.assert_close(sample.xyz, xyz[source])


class TestTraining:
    def test_first_step_never_meets_itself_and_the_second_meets_the_first(self, steps: list[dict[str, Any]]) -> None:
        train_adaptors(config_of(num_epochs=1), {"own": [make_patch_set(s) for s in range(4)]}, seed=0)
        first, second = steps
        assert first["held"]["own"].shape == (0, RGB_DIM) and set(first["losses"]) == {"la", "ga"}
        pushed = torch.cat([sample.rgb.detach() for sample in first["batch"]])
        assert torch.equal(second["held"]["own"], pushed) and set(second["losses"]) == set(LOSSES)
        assert second["losses"]["lc"] > 0

    @pytest.mark.parametrize(
        ("changes", "first_step"),
        [
            ({}, 1),
            ({"ifc_from_step": 3}, 3),
            ({"ifc_from_step": 6}, None),
            ({"ifc_full_bank": True, "local_bank_rows": 2 * 22}, 2),
            ({"ifc_full_bank": True, "local_bank_rows": 2 * 22 + 1}, 3),
            ({"ifc_full_bank": True, "local_bank_rows": 22, "ifc_from_step": 4}, 4),
        ],
    )
    def test_compactness_waits_for_its_step_and_its_bank(
        self, steps: list[dict[str, Any]], changes: dict[str, Any], first_step: int | None
    ) -> None:
        samples = [make_patch_set(s) for s in range(4)]  # 2 steps an epoch, 22 patches a step
        _, history = train_adaptors(config_of(**changes), {"own": samples}, seed=0)
        assert [step["step"] for step in steps] == list(range(6))
        begins = 6 if first_step is None else first_step
        for step in steps:
            assert set(step["losses"]) == ({"la", "ga"} if step["step"] < begins else set(LOSSES))
        assert ("lc" in history) == ("gc" in history) == (begins < 6)
        assert len(history["la"]) == 6 and len(history.get("lc", [])) == 6 - begins

    def test_banks_hold_the_last_rows_of_their_category_and_never_more(self, steps: list[dict[str, Any]]) -> None:
        by_category = {"peach": [make_patch_set(s) for s in range(5)], "cable": [make_patch_set(s) for s in (7, 8, 9)]}
        train_adaptors(config_of(batch_size=3, scope="all"), by_category, seed=0)
        met = {(sample.category, len(step["batch"])) for step in steps for sample in step["batch"]}
        assert met == {("peach", 3), ("cable", 3), ("peach", 2), ("cable", 2)} and len(steps) == 3 * 3
        for category, banks in steps[-1]["banks"].items():
            passed = [sample for step in steps for sample in step["batch"] if sample.category == category]
            assert len(passed) == 3 * len(by_category[category])
            for name, capacity in (("rgb", 29), ("xyz", 29), ("rgb_instances", 3), ("xyz_instances", 3)):
                bank = getattr(banks, name.replace("_instances", "") + ("_global" if "_" in name else "_local"))
                assert torch.equal(bank.oldest_first(), torch.cat([getattr(s, name) for s in passed])[-capacity:])
                assert bank.rows.untyped_storage().nbytes() == capacity * bank.rows.shape[1] * 4

    def test_every_sample_is_met_once_an_epoch_in_an_order_of_the_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        orders, real = [], adaptor_training.shuffled_batches

        def recorded(*arguments: Any) -> list[list[tuple[str, int]]]:
            batches = list(real(*arguments))
            assert [len(batch) for batch in batches] == [3, 3, 1]
            orders.append([index for batch in batches for _, index in batch])
            return batches

        monkeypatch.setattr(adaptor_training, "shuffled_batches", recorded)
        samples = [make_patch_set(s) for s in range(7)]
        for seed in (3, 3, 4):
            train_adaptors(config_of(batch_size=3), {"own": samples}, seed)
        assert all(sorted(order) == list(range(7)) for order in orders) and len(orders) == 9
        assert orders[:3] == orders[3:6] and orders[0] != orders[1] != orders[2] and orders[0] != orders[6]

    @pytest.mark.parametrize("patches_per_image", [None, 4])
    def test_a_run_depends_on_its_seed_alone(self, patches_per_image: int | None) -> None:
        config = config_of(patches_per_image=patches_per_image, num_clusters=2)
        samples = {"own": [make_patch_set(s) for s in range(5)]}
        before = torch.random.get_rng_state()
        runs = []
        for seed in (3, 3, 4):
            runs.append(train_adaptors(config, samples, seed))
            assert torch.equal(torch.random.get_rng_state(), before)
            torch.rand(3)
            before = torch.random.get_rng_state()
        (first, first_history), (again, again_history), (other, other_history) = runs
        assert same_weights(first, again) and first_history == again_history
        assert not same_weights(first, other) and first_history != other_history

    def test_categories_count_in_the_order_of_their_names(self) -> None:
        by_category = {"cable": [make_patch_set(s) for s in (1, 2)], "peach": [make_patch_set(s) for s in (3, 4, 5)]}
        first, history = train_adaptors(config_of(), by_category, seed=0)
        again, same_history = train_adaptors(config_of(), dict(reversed(by_category.items())), seed=0)
        assert same_weights(first, again) and history == same_history

    def test_no_epochs_leave_the_first_weights(self) -> None:
        config = config_of(num_epochs=0)
        adaptors, history = train_adaptors(config, {"own": [make_patch_set(0)]}, seed=5)
        assert same_weights(adaptors, make_adaptors(config, seed=5))
        assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
            ("rank_rgb", "rank_xyz", "scale_rgb", "scale_xyz"), 1
        )

    def test_contrast_is_learnt_and_healthy_training_does_not_warn(self) -> None:
        config = config_of(**only("la", "ga"), temperature=0.2, num_epochs=40, learning_rate=1e-2)
        _, history = train_adaptors(config, {"own": [make_patch_set(s) for s in range(4)]}, seed=0)
        lowest = math.log(11)
        assert history["la"][-1] - lowest < 0.7 * (history["la"][0] - lowest)
        assert len(history["rank_rgb"]) == len(history["scale_xyz"]) == 41

    @pytest.mark.parametrize("names", [("lc",), ("gc",), ("lc", "gc"), ()])
    def test_training_without_contrast_begins_when_the_banks_are_ready(self, names: tuple[str, ...]) -> None:
        config = config_of(**only(*names), ifc_from_step=2)
        adaptors, history = train_adaptors(config, {"own": [make_patch_set(s) for s in range(4)]}, seed=0)
        assert {name for name in LOSSES if name in history} == set(names)
        assert all(len(history[name]) == 4 for name in names)
        assert same_weights(adaptors, make_adaptors(config)) == (names == ())

    def test_the_step_follows_the_weighted_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weights = {"weight_la": 0.7, "weight_ga": 0.3, "weight_lc": 2.0, "weight_gc": 5.0}
        config = config_of(**weights, batch_size=1, num_epochs=1, warmup_epochs=0, learning_rate=1e-2)
        gradients = []

        class Recorder(torch.optim.AdamW):
            def step(self, closure: None = None) -> None:
                gradients.append([parameter.grad.clone() for parameter in self.param_groups[0]["params"]])
                assert self.param_groups[0]["betas"] == (0.9, 0.95) and self.param_groups[0]["weight_decay"] == 0.01

        monkeypatch.setattr(torch.optim, "AdamW", Recorder)  # takes no step, so that the weights stay the first ones
        train_adaptors(config, {"own": [make_patch_set(1), make_patch_set(2)]}, seed=0)
        found = set()
        for order in ((1, 2), (2, 1)):
            adaptors, banks = make_adaptors(config), make_banks(config, "own")
            banks["own"].push(adapted_sample(adaptors, config, order[0]))
            losses = training_losses(adaptors, [adapted_sample(adaptors, config, order[1])], banks, config, step=1)
            torch.stack([weights[f"weight_{name}"] * loss for name, loss in losses.items()]).sum().backward()
            pairs = zip(gradients[1], adaptors.parameters(), strict=True)
            found |= {order} if all(torch.allclose(seen, p.grad, atol=1e-6) for seen, p in pairs) else set()
        assert len(found) == 1

    def test_progress_changes_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        samples = {"own": [make_patch_set(s) for s in range(3)]}
        assert train_adaptors(config_of(), samples, 0)[1] == train_adaptors(config_of(), samples, 0, progress=True)[1]
        assert "LSFA epochs" in capsys.readouterr().err


class TestSchedule:
    @pytest.mark.parametrize(
        ("changes", "factors"),
        [
            # 4 steps an epoch; over the remaining 8 steps the cosine falls by pi / 8 a step
            ({"num_epochs": 3}, [1 / 4, 2 / 4, 3 / 4, 1, *(0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(8))]),
            ({"num_epochs": 2, "warmup_epochs": 0}, [0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(8)]),
            (
                {"num_epochs": 2, "schedule_epochs": 9},
                [1 / 4, 2 / 4, 3 / 4, 1, *(0.5 + 0.5 * math.cos(math.pi * i / 32) for i in range(4))],
            ),
            ({"num_epochs": 1}, [1 / 4, 2 / 4, 3 / 4, 1]),
            ({"num_epochs": 1, "warmup_epochs": 3}, [1 / 12, 2 / 12, 3 / 12, 4 / 12]),
            ({"num_epochs": 3, "warmup_epochs": 0, "schedule_epochs": 1}, [1, COS, 0.5, 1 - COS, *[0] * 8]),
        ],
    )
    def test_learning_rate_rises_and_falls_along_half_a_cosine(
        self, changes: dict[str, int], factors: list[float]
    ) -> None:
        config = config_of(learning_rate=3e-3, **changes)
        assert rates_of(config, steps_per_epoch=4) == pytest.approx([3e-3 * factor for factor in factors], abs=1e-9)

    def test_training_takes_a_step_of_the_schedule_with_each_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen, expected = [], rates_of(config_of(), steps_per_epoch=4)

        class Recorder(torch.optim.AdamW):
            def step(self, closure: None = None) -> None:
                seen.append(self.param_groups[0]["lr"])
                super().step(closure)

        monkeypatch.setattr(torch.optim, "AdamW", Recorder)
        train_adaptors(config_of(), {"own": [make_patch_set(s) for s in range(7)]}, seed=0)
        assert seen == expected


def rates_of(config: LSFAConfig, steps_per_epoch: int) -> list[float]:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    scheduler = warmup_cosine(optimizer, config, steps_per_epoch)
    rates = []
    for _ in range(config.num_epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


class TestThinning:
    def test_short_curves_stay_as_they_are(self) -> None:
        assert thinned([3.0, 1.0, 2.0], CURVE_POINTS) == [3.0, 1.0, 2.0]

    def test_long_curves_become_means_over_stretches(self) -> None:
        curve = [float(value) for value in range(2 * CURVE_POINTS + 1)]
        found = thinned(curve, len(curve))
        assert found[:2] == [1.0, 4.0] and len(found) == -(-len(curve) // 3) <= CURVE_POINTS

    def test_a_curve_that_starts_late_has_stretches_of_the_same_length(self) -> None:
        assert thinned([1.0, 2.0, 6.0, 8.0, 9.0], 2 * CURVE_POINTS) == [1.5, 7.0, 9.0]

    @pytest.mark.parametrize("num_steps", [1, 59, 60, 61, 119, 120, 121, 1000])
    def test_no_curve_has_too_many_points(self, num_steps: int) -> None:
        assert num_steps / 20 <= len(thinned([1.0] * num_steps, num_steps)) <= CURVE_POINTS


class TestCollapse:
    def test_history_holds_rank_and_scale_of_the_adapted_features(self) -> None:
        adaptors, samples = make_adaptors(config_of()), [make_patch_set(s) for s in range(3)]
        history = CollapseWatch(adaptors.adapt, samples).history
        rows = torch.cat([adaptors.adapt(sample).xyz for sample in samples]).double()
        centered = rows - rows.mean(dim=0)
        shares = torch.linalg.svdvals(centered) / torch.linalg.svdvals(centered).sum()
        assert history["rank_xyz"] == pytest.approx([float((-(shares * shares.log()).sum()).exp())], rel=1e-5)
        assert history["scale_xyz"] == pytest.approx([float((centered**2).sum(dim=1).mean() ** 0.5)], rel=1e-5)

    @pytest.mark.parametrize("number", [1, 4, 5, 8, 17])
    def test_a_few_samples_are_watched(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        adaptors, seen = make_adaptors(config_of()), []
        monkeypatch.setattr(adaptors, "adapt", lambda patch_set: seen.append(patch_set.sample_id) or patch_set)
        CollapseWatch(adaptors.adapt, [make_patch_set(s) for s in range(number)])
        assert 1 <= len(seen) == len(set(seen)) <= 4 and (number > 4 or len(seen) == number)

    def test_adaptors_that_come_to_give_a_line_are_warned_of(self) -> None:
        adaptors = make_adaptors(config_of())
        watch = CollapseWatch(adaptors.adapt, [make_patch_set(s) for s in range(3)])
        watch.look()
        watch.warn()
        with torch.no_grad():  # what the RGB adaptor adds swamps what it is given, and lies on a line
            adaptors.rgb_adaptor.mlp.fc2.weight[:] = 1e4 * adaptors.rgb_adaptor.mlp.fc2.weight[:1]
        watch.look()
        with pytest.warns(RuntimeWarning, match=r"adapted rgb features fell from \d\.\d to 1\.\d; they may"):
            watch.warn()

    def test_compactness_alone_collapses_and_warns(self) -> None:
        bank = {"local_bank_rows": 11, "batch_size": 1, "warmup_epochs": 0}
        config = config_of(**only("lc"), **bank, num_epochs=150, learning_rate=3e-2)
        samples = {"own": [make_patch_set(seed, num_patches=40) for seed in range(2)]}
        with pytest.warns(RuntimeWarning, match="lower weight_lc and weight_gc, or raise weight_la") as caught:
            _, history = train_adaptors(config, samples, seed=0)
        assert all(warning.filename.endswith("test_adaptation.py") for warning in caught)
        assert history["rank_xyz"][-1] < history["rank_xyz"][0] / 2
