"""Trainings on CUDA: every precision learns alike, chunks and resident tokens change nothing, a resumed one goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.errors import InputError
from lib.heads import build_head
from lib.heads.checkpoints import Checkpoint
from lib.heads.epochs import Epochs
from lib.pixel_mean import averaged_xyz
from lib.training import GPU_PRESETS, TrainingSetup, choose_precision, choose_preset
from tests.factories import make_features
from tests.test_training import HELD_OUT, NORMAL, TRAINED

pytestmark = pytest.mark.gpu

ON_GPU = TrainingSetup(preset=GPU_PRESETS[8])


def history(
    name: str, setup: TrainingSetup = ON_GPU, checkpoint: Checkpoint | None = None, device: str = "cuda"
) -> Any:
    """Losses of a small training."""
    config = TRAINED[name]
    further = {"validation": HELD_OUT} if config.needs_validation else {}
    found = build_head(config, 3, 5, device).fit(NORMAL, 3, setup=setup, checkpoint=checkpoint, **further)
    return {key: curve for key, curve in found.items() if not key.startswith(("rank", "scale"))}


def assert_alike(first: Any, second: Any, rel: float) -> None:
    assert first.keys() == second.keys()
    for key, curve in first.items():
        assert second[key] == pytest.approx(curve, rel=rel, abs=rel / 5)


@pytest.mark.parametrize("name", ["cfm", "lsfa", "m3dm", "ast"])
def test_cuda_learns_as_the_processor_does(name: str) -> None:
    plain = history(name, TrainingSetup(), device="cpu")
    assert_alike(plain, history(name), rel=0.02)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["cfm", "lsfa", "m3dm", "ast"])
def test_every_precision_learns_alike(name: str, precision: str) -> None:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    assert_alike(history(name), history(name, replace(ON_GPU, precision=precision)), rel=0.1)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    "changes", [{"pixels_per_chunk": 17}, {"resident_gb": 0.0}, {"recompute_adaptors": False}], ids=str
)
@pytest.mark.parametrize("name", ["cfm", "lsfa"])
def test_memory_presets_change_nothing_but_rounding(name: str, changes: dict[str, Any]) -> None:
    assert_alike(history(name), history(name, replace(ON_GPU, preset=replace(ON_GPU.preset, **changes))), rel=0.01)


@pytest.mark.filterwarnings("ignore")  # the compiler warns within itself, and stops where warnings are errors
def test_compiled_networks_learn_alike() -> None:
    assert_alike(history("cfm"), history("cfm", replace(ON_GPU, compiled=True)), rel=0.01)


def test_a_training_cut_off_goes_on_to_nearly_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = history("cfm")
    real = Epochs.__iter__
    with monkeypatch.context() as patch:
        patch.setattr(Epochs, "__iter__", lambda self: (e for e, _ in zip(real(self), range(3), strict=False)))
        history("cfm", checkpoint=Checkpoint(tmp_path, "test", every_s=0))
    assert len(list(tmp_path.iterdir())) == 1
    assert_alike(plain, history("cfm", checkpoint=Checkpoint(tmp_path, "test")), rel=0.01)


def test_settings_follow_the_gpu() -> None:
    assert choose_precision("auto", "cuda") in ("bf16", "fp16")
    assert choose_preset(None, "cuda").gpu_gb in GPU_PRESETS


def test_a_training_that_will_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0.1e9, 80e9))
    sample = make_features(seed=0, height=224, width=224)
    with pytest.raises(InputError, match="CFM training needs about"):
        build_head(TRAINED["cfm"], 3, 5, "cuda").fit([sample], 0, setup=ON_GPU)


def test_features_on_the_gpu_are_averaged_as_on_the_processor() -> None:
    sample = make_features(seed=1)
    expected, found = averaged_xyz(sample, 3), averaged_xyz(sample.to("cuda"), 3)
    assert all(tensor.device.type == "cuda" for tensor in found.tensors.values())
    assert torch.equal(found.neighbors.cpu(), expected.neighbors) and torch.equal(found.weights.cpu(), expected.weights)
