"""AST: inputs, masks, losses and maps against loops; training, seeds, round trips, and what cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.errors import InputError
from lib.heads.ast import AST, AST_DEMO, AST_DEMO_OWN, AST_PAPER, ASTConfig, full_batches
from lib.stored_heads import load_head, save_head
from tests.factories import make_features

TINY = ASTConfig(
    mask="foreground", num_couplings=2, hidden_dim=5, position_dim=8, student_width=7, num_residual_blocks=1,
    teacher_epochs=3, student_epochs=3, learning_rate=1e-2, batch_size=2,
)  # fmt: skip
GRID = 5


def sample_on_grid(seed: int, **changes: Any) -> Any:
    """A made-up sample with 25 depth tokens, those off the object 0."""
    sample = make_features(seed=seed, groups=GRID**2)
    touched = touched_by_loop(sample)
    return dataclasses.replace(sample, xyz_tokens=sample.xyz_tokens * touched.flatten()[:, None], **changes)


def touched_by_loop(sample: Any) -> torch.Tensor:
    touched = torch.zeros(GRID, GRID, dtype=torch.bool)
    for row, column in sample.foreground.nonzero().tolist():
        touched[row * GRID // 28, column * GRID // 28] = True
    return touched


TRAIN = [sample_on_grid(seed) for seed in range(5)]
SAMPLE = sample_on_grid(9)


def fitted(config: ASTConfig = TINY, seed: int = 0) -> AST:
    head = AST(config, 3, 5)
    head.fit(TRAIN, seed)
    return head


def test_input_is_rgb_on_the_depth_grid_and_the_depth() -> None:
    maps, mask = AST(TINY, 3, 5).read(SAMPLE)
    assert maps.shape == (8, GRID, GRID) and torch.equal(mask, touched_by_loop(SAMPLE))
    expected = torch.nn.functional.interpolate(SAMPLE.rgb_tokens[None], size=(GRID, GRID), mode="bilinear")[0]
    torch.testing.assert_close(maps[:3], expected)
    assert maps[3:, 2, 4].tolist() == SAMPLE.xyz_tokens[14].tolist()


@pytest.mark.parametrize(("inputs", "rows"), [("rgb", slice(0, 3)), ("xyz", slice(3, 8))])
def test_one_modality_sees_its_channels_alone(inputs: str, rows: slice) -> None:
    head = fitted(dataclasses.replace(TINY, inputs=inputs))
    both, _ = AST(TINY, 3, 5).read(SAMPLE)
    assert torch.equal(head.read(SAMPLE)[0], both[rows])
    changed = dataclasses.replace(SAMPLE, xyz_tokens=SAMPLE.xyz_tokens * 3)
    same = torch.equal(head.predict(SAMPLE)["max"].anomaly_map, head.predict(changed)["max"].anomaly_map)
    assert same == (inputs == "rgb")


def test_the_depths_own_mask_is_where_any_channel_is_not_0() -> None:
    depth = torch.zeros(GRID**2, 5)
    depth[7, 3], depth[11] = 0.5, -1.0
    _, mask = AST(dataclasses.replace(TINY, mask="depth"), 3, 5).read(dataclasses.replace(SAMPLE, xyz_tokens=depth))
    assert mask.flatten().nonzero().flatten().tolist() == [7, 11]


def test_losses_are_means_over_the_cells_that_count() -> None:
    head = fitted()
    maps, masks = (torch.stack(tensors) for tensors in zip(*(head.read(sample) for sample in TRAIN[:2]), strict=True))
    with torch.no_grad():
        condition = head._condition(maps)
        z, log_det = head.teacher(maps, condition)
        guess = head.student(maps, condition)
        found = float(head._likelihood(maps, masks)), float(head._imitation(maps, head._targets(maps), masks))
    likelihood, imitation = [], []
    for image, row, column in masks.nonzero().tolist():
        at = (image, slice(None), row, column)
        likelihood.append((float(z[at].square().sum()) / 2 - float(log_det[image, row, column])) / 8)
        imitation.append(float((guess[at] - z[at]).square().sum()) / 8)
    assert found == pytest.approx((np.mean(likelihood), np.mean(imitation)), rel=1e-5)


def test_map_is_the_enlarged_difference_cut_to_the_object_and_scores_are_of_the_cells() -> None:
    head = fitted()
    maps, mask = head.read(SAMPLE)
    with torch.no_grad():
        condition = head._condition(maps[None])
        difference = (head.student(maps[None], condition) - head.teacher(maps[None], condition)[0])[0].square().mean(0)
    found = head.predict(SAMPLE)
    assert tuple(found) == AST.variants == ASTConfig.variants == ("max", "mean")
    assert found["max"].image_score == pytest.approx(float(difference[mask].max()))
    assert found["mean"].image_score == pytest.approx(float(difference[mask].mean()))
    large = torch.nn.functional.interpolate((difference * mask)[None, None], size=(28, 28), mode="bicubic")[0, 0]
    torch.testing.assert_close(found["max"].anomaly_map, large.clamp_min(0) * SAMPLE.foreground)
    own = fitted(dataclasses.replace(TINY, mask="depth")).predict(SAMPLE)["max"].anomaly_map
    assert own[~SAMPLE.foreground].max() > 0  # whole cells


def test_training_lowers_both_losses_and_a_defect_raises_the_score() -> None:
    longer = dataclasses.replace(TINY, teacher_epochs=40, student_epochs=40, num_residual_blocks=2, student_width=16)
    head = AST(longer, 3, 5)
    history = head.fit(TRAIN, 0)
    for name in ("teacher", "student"):
        assert len(history[name]) == 40 and np.mean(history[name][-5:]) < np.mean(history[name][:5])
    defect = dataclasses.replace(SAMPLE, xyz_tokens=SAMPLE.xyz_tokens + 6 * SAMPLE.xyz_tokens.ne(0))
    assert head.predict(defect)["mean"].image_score > head.predict(SAMPLE)["mean"].image_score


def test_a_seed_decides_everything_and_another_fit_forgets_the_first() -> None:
    first, other = fitted(seed=3), fitted(seed=4)
    again = AST(TINY, 3, 5)
    again.fit(TRAIN[:3], 1)
    again.fit(TRAIN, 3)
    maps = [head.predict(SAMPLE)["max"].anomaly_map for head in (first, again, other)]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


def test_the_teacher_rests_while_the_student_learns() -> None:
    teacher_only = fitted(dataclasses.replace(TINY, student_epochs=0))
    pairs = zip(teacher_only.teacher.parameters(), fitted().teacher.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert [len(batch) for batch in full_batches(11, 4, generator)] == [4, 4]
    (alone,) = full_batches(3, 4, generator)
    assert sorted(alone.tolist()) == [0, 1, 2]
    orders = [torch.cat(list(full_batches(8, 4, generator))).tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(8)) and orders[0] != orders[1]


def test_a_saved_head_predicts_the_same(tmp_path: Path) -> None:
    head = fitted()
    save_head(tmp_path / "head.safetensors", head, 3, 5)
    loaded = load_head(tmp_path / "head.safetensors")
    for name, prediction in head.predict(SAMPLE).items():
        found = loaded.predict(SAMPLE)[name]
        assert torch.equal(found.anomaly_map, prediction.anomaly_map) and found.image_score == prediction.image_score


def test_instances() -> None:
    assert (AST_PAPER.student_width, AST_PAPER.teacher_epochs, AST_PAPER.learning_rate) == (1024, 72, 2e-4)
    assert AST_PAPER.mask == AST_DEMO_OWN.mask == "depth" and AST_DEMO.mask == "foreground"
    assert dataclasses.replace(AST_DEMO_OWN, mask="foreground") == AST_DEMO


def test_what_cannot_work_is_one_line() -> None:
    with pytest.raises(InputError, match="no training features"):
        AST(TINY, 3, 5).fit([], 0)
    with pytest.raises(InputError, match="13 3D tokens, which are no square grid; use the extractor depth"):
        AST(TINY, 3, 5).fit([make_features(seed=0)], 0)
    with pytest.raises(InputError, match="AST variant 'sum' is unknown"):
        fitted().predict(SAMPLE, ("sum",))
    empty = dataclasses.replace(SAMPLE, xyz_tokens=torch.zeros(GRID**2, 5))
    with pytest.raises(InputError, match="has no cell with depth"):
        fitted(dataclasses.replace(TINY, mask="depth")).predict(empty)
    broken = [dataclasses.replace(SAMPLE, rgb_tokens=SAMPLE.rgb_tokens * 1e30)]
    with pytest.raises(InputError, match="teacher's loss is not finite in epoch 1; lower learning_rate"):
        AST(TINY, 3, 5).fit(broken, 0)


@pytest.mark.parametrize(
    "change", [{"inputs": "depth"}, {"mask": "all"}, {"kernel": 4}, {"position_dim": 6}, {"clamp": 0}]
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        ASTConfig(**change)
