"""CFM head: the reference case, the paper's sizes, hand-made maps, determinism, bad input."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from lib.errors import InputError
from lib.heads import cfm_training
from lib.heads.cfm import CFM, aggregate, blur, combine, score
from lib.heads.cfm_training import draw
from lib.heads.mapping_networks import MappingMLP
from lib.heads.mixed_rows import MixedRows, pixel_rows
from lib.heads.released_cfm import DIRECTIONS
from lib.losses import cosine_distance, unit_distance
from lib.methods import CFM_VARIANTS, CFMConfig, Scoring
from lib.training import CPU_PRESET, TrainingSetup
from tests.factories import make_features

CASE = np.load(Path(__file__).parent / "cases" / "cfm_case.npz")
NUM_PIXELS = 19 * 19  # of the object in `make_features`
REFERENCE_NAMES = {ours: theirs for theirs, ours in DIRECTIONS.items()}


def relative_difference(ours: torch.Tensor | float, reference: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


def rule_weight(name: str, shape: torch.Size) -> torch.Tensor:
    """Weight of the reference case: drawn from a generator seeded by the parameter's name."""
    drawn = np.random.default_rng([7, zlib.crc32(name.encode())]).standard_normal(tuple(shape)).astype(np.float32)
    return torch.from_numpy(drawn / np.float32(np.sqrt(np.prod(shape[1:]))) if len(shape) > 1 else 0.05 * drawn)


@pytest.fixture(scope="module")
def case_head() -> CFM:
    head = CFM(CFMConfig(), rgb_dim=768, xyz_dim=1152)
    for ours, theirs in REFERENCE_NAMES.items():
        network = getattr(head, ours)
        state = {key: rule_weight(f"{theirs}.{key}", value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict(state)
    return head


@pytest.fixture(scope="module")
def case_maps(case_head: CFM) -> dict[str, torch.Tensor]:
    """Discrepancies of the case, through the same networks and functions as `CFM.discrepancies`."""
    tokens = torch.from_numpy(CASE["rgb_tokens"])[None]
    rgb = F.interpolate(tokens, (56, 56), mode="bilinear", align_corners=False)[0].flatten(1).T
    xyz = torch.from_numpy(CASE["xyz_mix"] @ CASE["xyz_base"])
    foreground = torch.from_numpy(CASE["foreground"]).flatten()
    psi = torch.zeros(2, foreground.numel())
    with torch.inference_mode():
        psi[0, foreground] = unit_distance(case_head.xyz_to_rgb(xyz[foreground]), rgb[foreground])
        psi[1, foreground] = unit_distance(case_head.rgb_to_xyz(rgb[foreground]), xyz[foreground])
        loss = case_head.losses(rgb[foreground], xyz[foreground])
    return {"psi_2d": psi[0].view(56, 56), "psi_3d": psi[1].view(56, 56), "losses": torch.stack(loss)}


@pytest.mark.parametrize("name", ["psi_2d", "psi_3d"])
def test_discrepancies_meet_the_reference_case(case_maps: dict[str, torch.Tensor], name: str) -> None:
    assert relative_difference(case_maps[name], CASE[name]) < 1e-4


def test_losses_meet_the_reference_case(case_maps: dict[str, torch.Tensor]) -> None:
    ours = case_maps["losses"].numpy()
    assert relative_difference(ours, np.array([CASE["loss_2d_to_3d"], CASE["loss_3d_to_2d"]])) < 1e-4


def test_released_scoring_meets_the_reference_case(case_maps: dict[str, torch.Tensor]) -> None:
    product = aggregate(case_maps["psi_2d"], case_maps["psi_3d"], "product")
    assert relative_difference(product, CASE["product"]) < 1e-4
    assert relative_difference(blur(product, Scoring(blur="box")), CASE["product_boxblur"]) < 1e-4
    prediction = combine(case_maps["psi_2d"], case_maps["psi_3d"], CFM_VARIANTS["product-released"])
    assert relative_difference(prediction.anomaly_map, CASE["aupro_map"]) < 1e-4
    assert relative_difference(prediction.image_score, CASE["image_score"]) < 1e-4
    pixel_map = prediction.anomaly_map * prediction.pixel_scale
    assert relative_difference(pixel_map, CASE["pixel_auroc_map"]) < 1e-4


def test_paper_head_has_the_paper_size() -> None:
    count = {(i, o): sum(p.numel() for p in MappingMLP(i, o).parameters()) for i, o in ((768, 1152), (1152, 768))}
    assert count == {(768, 1152): 2_767_872, (1152, 768): 2_767_488}  # reference facts, section 3


def test_losses_by_hand() -> None:
    prediction = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]])
    observation = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(cosine_distance(prediction, observation), torch.tensor([0.0, 1.0, 2.0, 1.0]))
    torch.testing.assert_close(unit_distance(prediction, observation), torch.tensor([0.0, 2**0.5, 2.0, 1.0]))


def test_squared_unit_distance_is_twice_the_cosine_distance() -> None:
    pair = torch.randn(2, 11, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(unit_distance(*pair).square(), 2 * cosine_distance(*pair))


@pytest.mark.parametrize(
    ("name", "expected"), [("product", 6.0), ("sum", 5.0), ("max", 3.0), ("psi_2d", 2.0), ("psi_3d", 3.0)]
)
def test_aggregations_by_hand(name: str, expected: float) -> None:
    assert aggregate(torch.full((7, 3), 2.0), torch.full((7, 3), 3.0), name).eq(expected).all()


def test_released_score_of_an_empty_map_is_zero() -> None:
    prediction = score(torch.zeros(5, 7), "released")
    assert prediction.image_score == 0.0 and prediction.anomaly_map.eq(0).all()


def test_discrepancies_are_those_of_each_pixel_and_zero_off_the_object() -> None:
    sample = make_features(seed=1)
    head = CFM(CFMConfig(hidden_dim=6), *feature_dims(sample))
    psi_2d, psi_3d = head.discrepancies(sample)
    rgb, xyz = sample.at_pixels()
    with torch.inference_mode():
        for row, pixel in enumerate(sample.pixel_index.tolist()):
            for psi, network, seen, other in ((psi_2d, head.xyz_to_rgb, rgb, xyz), (psi_3d, head.rgb_to_xyz, xyz, rgb)):
                predicted = F.normalize(network(other[row]), dim=0)
                expected = (predicted - F.normalize(seen[row], dim=0)).norm()
                torch.testing.assert_close(psi.flatten()[pixel], expected)
    assert psi_2d[~sample.foreground].eq(0).all() and psi_3d[~sample.foreground].eq(0).all()


def test_training_is_repeatable_and_learns() -> None:
    features = [make_features(seed=s) for s in range(5)]
    config = CFMConfig(hidden_dim=8, num_epochs=30, batch_size=2, pixels_per_image=17, learning_rate=1e-2)
    histories, maps = [], []
    for _ in range(2):
        head = CFM(config, *feature_dims(features[0]))
        histories.append(head.fit(features, seed=4))
        maps.append(head.predict(features[0], ("product",))["product"].anomaly_map)
    assert histories[0] == histories[1] and torch.equal(*maps)
    assert histories[0]["rgb_to_xyz"][-1] < 0.7 * histories[0]["rgb_to_xyz"][0]
    other = CFM(config, *feature_dims(features[0])).fit(features, seed=5)
    assert other != histories[0]


@pytest.mark.parametrize("count", [1, 17, NUM_PIXELS - 1, NUM_PIXELS, NUM_PIXELS + 1, None])
def test_drawn_pixels_are_pairs_of_the_sample_without_repeats(count: int | None) -> None:
    sample = make_features(seed=1)
    rows = draw(sample, CFMConfig(pixels_per_image=count), torch.Generator().manual_seed(2))
    drawn = torch.cat([mixed.read() for mixed in pixel_rows([sample], [rows])], dim=1)
    whole = torch.cat(sample.at_pixels(), dim=1)
    assert len(whole) == NUM_PIXELS and len(drawn) == min(count or NUM_PIXELS, NUM_PIXELS)
    distance, source = torch.cdist(drawn, whole, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    assert distance.max() < 1e-5 and len(source.unique()) == len(drawn)
    assert torch.equal(drawn, whole) == (count is None or count >= NUM_PIXELS)


@pytest.mark.parametrize(("count", "rows"), [(17, [34, 34, 17]), (None, [2 * NUM_PIXELS, 2 * NUM_PIXELS, NUM_PIXELS])])
def test_each_step_sees_the_pixels_asked_for(
    monkeypatch: pytest.MonkeyPatch, count: int | None, rows: list[int]
) -> None:
    features = [make_features(seed=s) for s in range(5)]
    head = CFM(CFMConfig(hidden_dim=4, num_epochs=2, batch_size=2, pixels_per_image=count), *feature_dims(features[0]))
    real, seen = cfm_training.MappingStep.backward, []

    def backward(self: Any, rgb: MixedRows, xyz: MixedRows) -> torch.Tensor:
        seen.append((len(rgb), len(xyz)))
        return real(self, rgb, xyz)

    monkeypatch.setattr(cfm_training.MappingStep, "backward", backward)
    head.fit(features, seed=0)
    assert seen == [(number, number) for number in rows] * 2


@pytest.mark.parametrize("chunk", [10_000, 101])
@pytest.mark.parametrize("count", [5, None])  # fewer pixels than tokens, and many more
def test_a_step_has_the_gradients_of_the_plain_loss(count: int | None, chunk: int) -> None:
    features = [make_features(seed=s) for s in range(3)]
    head = CFM(CFMConfig(hidden_dim=6, pixels_per_image=count), *feature_dims(features[0]))
    rows = [draw(s, head.config, torch.Generator().manual_seed(5)) for s in features]
    pairs = [sample.at_pixels(drawn) for sample, drawn in zip(features, rows, strict=True)]
    read = [torch.cat(tables) for tables in zip(*pairs, strict=True)]
    networks = torch.nn.ModuleDict({name: getattr(head, name) for name in REFERENCE_NAMES})
    plain = head.losses(*read)
    sum(plain).backward()
    expected = [parameter.grad.clone() for parameter in networks.parameters()]
    networks.zero_grad()
    setup = TrainingSetup(preset=replace(CPU_PRESET, pixels_per_chunk=chunk))
    found = cfm_training.MappingStep(networks, setup).backward(*pixel_rows(features, rows))
    torch.testing.assert_close(found, torch.stack(plain).detach())
    for ours, theirs in zip((p.grad for p in networks.parameters()), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_layer_of_mixtures_is_the_mixture_of_the_layer() -> None:
    sample, layer = make_features(seed=1), torch.nn.Linear(3, 11)
    rgb, _ = pixel_rows([sample, make_features(seed=2)], [None, None])
    through = rgb.through(layer)
    assert len(through.table) == 2 * 49 and len(through) == 2 * NUM_PIXELS
    torch.testing.assert_close(through.read(), layer(rgb.read()))
    few, _ = pixel_rows([sample], [torch.arange(7)])
    assert len(few.through(layer).table) == 7 and torch.equal(few.through(layer).read(), layer(few.read()))


def test_every_pixel_in_any_order_gives_the_same_loss() -> None:
    sample = make_features(seed=1)
    head = CFM(CFMConfig(hidden_dim=4), *feature_dims(sample))
    order = torch.randperm(NUM_PIXELS, generator=torch.Generator().manual_seed(3))
    shuffled, whole = head.losses(*sample.at_pixels(order)), head.losses(*sample.at_pixels())
    torch.testing.assert_close(torch.stack(shuffled), torch.stack(whole))


def steps_of(monkeypatch: pytest.MonkeyPatch, schedule: str) -> list[float]:
    """Learning rate of each of the 20 steps of a training, in which Adam's betas stay as they are."""
    seen = []

    class Recorder(torch.optim.Adam):
        def step(self, closure: None = None) -> None:
            seen.append((self.param_groups[0]["lr"], tuple(self.param_groups[0]["betas"])))
            super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    features = [make_features(seed=s) for s in range(4)]
    config = CFMConfig(hidden_dim=4, num_epochs=10, batch_size=2, learning_rate=3e-3, schedule=schedule)
    CFM(config, *feature_dims(features[0])).fit(features, seed=0)
    assert len(seen) == 20 and {betas for _, betas in seen} == {(0.9, 0.999)}
    return [rate for rate, _ in seen]


def test_constant_schedule_keeps_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_of(monkeypatch, "constant") == [3e-3] * 20


def test_one_cycle_schedule_peaks_at_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = steps_of(monkeypatch, "one_cycle")
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(3e-3) and 0 < peak < 10
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] < 3e-3 / 20 and rates[-1] < 3e-3 / 1000


@pytest.mark.parametrize("sigma_px", [0.7, 1.5, 4.0])
def test_blur_has_the_sigma_asked_for(sigma_px: float) -> None:
    psi_2d, psi_3d = torch.rand(2, 23, 31, generator=torch.Generator().manual_seed(4))
    found = combine(psi_2d, psi_3d, Scoring(blur_sigma_px=sigma_px))
    expected = gaussian_filter((psi_2d * psi_3d).double().numpy(), sigma_px, mode="constant", truncate=4.0)
    np.testing.assert_allclose(found.anomaly_map.numpy(), expected, atol=1e-6)
    assert found.image_score == found.anomaly_map.max()


def test_no_blur_leaves_the_map_alone() -> None:
    psi_2d, psi_3d = torch.rand(2, 23, 31, generator=torch.Generator().manual_seed(4))
    assert torch.equal(combine(psi_2d, psi_3d, Scoring(blur="none")).anomaly_map, psi_2d * psi_3d)


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(InputError, match="aggregation 'mean' is unknown"):
        Scoring(aggregation="mean")
    with pytest.raises(InputError, match="batch_size is 0"):
        CFMConfig(batch_size=0)


def feature_dims(sample: object) -> tuple[int, int]:
    return sample.rgb_tokens.shape[0], sample.xyz_tokens.shape[1]
