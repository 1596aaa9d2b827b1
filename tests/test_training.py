"""How trainings are computed and kept: a killed one ends as if nothing had happened; precision; memory."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import training
from lib.config import project_root
from lib.errors import InputError
from lib.heads import build_head
from lib.heads.adaptor_training import memory_needs as adaptor_needs
from lib.heads.ast import AST_DEMO
from lib.heads.cfm_training import memory_needs as mapping_needs
from lib.heads.checkpoints import Checkpoint, Curves, Draws, packed, unpacked
from lib.heads.epochs import Epochs
from lib.heads.m3dm import M3DM_DEMO
from lib.heads.mapping_networks import MappingMLP
from lib.instances import CFM_DEMO, CFM_PAPER, LSFA_DEMO, LSFA_PAPER
from lib.methods import AdaptedConfig, CFMConfig, FusionConfig
from lib.patches import PatchSet
from lib.training import CPU_PRESET, GPU_PRESETS, TrainingSetup, check_memory, choose_precision, choose_preset
from tests.factories import make_features

CFM = replace(CFM_DEMO, hidden_dim=6, num_epochs=5, batch_size=2, pixels_per_image=29)
LSFA = replace(LSFA_DEMO, grid_side=7, num_epochs=5, batch_size=2, projection_dim=4, local_bank_rows=53)
AST = replace(AST_DEMO, teacher_epochs=3, student_epochs=4, student_width=7, batch_size=2, hidden_dim=5)
M3DM = replace(M3DM_DEMO, grid_side=7, uff=replace(M3DM_DEMO.uff, num_epochs=5, patches_per_image=13, batch_size=2))
TRAINED = {
    "cfm": CFM,
    "lsfa": LSFA,
    "m3dm": M3DM,
    "ast": AST,
    "adapted": AdaptedConfig(CFM, LSFA.adaptors, LSFA.grid_side),
    "fusion": FusionConfig(CFM, LSFA),
}
NORMAL = [make_features(seed=s, groups=16) for s in range(5)]
HELD_OUT = [make_features(seed=s, groups=16) for s in range(5, 8)]
KILLED = """
import os, signal, sys
from pathlib import Path
from lib.heads.checkpoints import Checkpoint
from tests.test_training import TRAINED, fitted
real, calls = Checkpoint.save, []
def save(self, epochs_done, parts):
    real(self, epochs_done, parts)
    calls.append(epochs_done)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save
fitted(sys.argv[1], Checkpoint(Path(sys.argv[2]), {"test": 1}, every_s=0))
"""


def fitted(name: str, checkpoint: Checkpoint | None = None, setup: TrainingSetup = training.DEFAULT_SETUP) -> Any:
    """Head and history of a small training."""
    torch.set_num_threads(1)
    config = TRAINED[name]
    head = build_head(config, 3, 5)
    further = {"validation": HELD_OUT} if config.needs_validation else {}
    return head, head.fit(NORMAL, 3, setup=setup, checkpoint=checkpoint, **further)


@pytest.mark.parametrize(("name", "kill_at"), [(name, 3) for name in TRAINED] + [("ast", 6), ("fusion", 8)])
def test_a_killed_training_ends_with_identical_weights(name: str, kill_at: int, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-c", KILLED, name, str(folder), str(kill_at)]
    killed = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(folder.glob("*.safetensors")) and not list(folder.glob(".*"))
    seen: list[int] = []
    resumed_checkpoint = Checkpoint(folder, {"test": 1}, every_s=1e9)
    real = Checkpoint.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "load", lambda self, parts: seen.append(real(self, parts)) or seen[-1])
        resumed, history = fitted(name, resumed_checkpoint)
    plain, plain_history = fitted(name)
    assert max(seen) >= 2 and history == plain_history
    assert resumed.state().keys() == plain.state().keys()
    assert all(torch.equal(value, plain.state()[key]) for key, value in resumed.state().items())


def test_a_checkpoint_of_another_training_is_passed_over(tmp_path: Path) -> None:
    fitted("cfm", Checkpoint(tmp_path, {"seed": 1}, every_s=0))
    parts = {"curves": Curves()}
    assert Checkpoint(tmp_path, {"seed": 2}).load(parts) == 0 and not parts["curves"]
    assert Checkpoint(tmp_path, {"seed": 1}).load(parts) == CFM.num_epochs and parts["curves"]
    Checkpoint(tmp_path, {"seed": 1}).remove()
    assert not tmp_path.exists()


def test_a_checkpoint_knows_the_time_of_all_processes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lib.heads.checkpoints.time.monotonic", lambda: now[0])
    for process, epochs_done in enumerate((2, 3)):
        whole = Checkpoint(tmp_path, {})
        part = whole.part("second")
        now[0] += 50  # of what is not this training
        part.load({})
        assert whole.spent_s == ({"training-second": 7.0} if process else {})
        now[0] += 7
        part.save(epochs_done, {})
    again = Checkpoint(tmp_path, {}, name="training-second")
    assert again.load({}) == 3 and again.spent_s == {"training-second": 14.0}


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_checkpoint_is_a_warning_and_a_new_start(content: bytes, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="starts anew"):
        _, history = fitted("cfm", checkpoint)
    assert history == fitted("cfm")[1]


def test_checkpoints_are_written_when_due_and_not_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lib.heads.checkpoints.time.monotonic", lambda: now[0])
    checkpoint, saved = Checkpoint(tmp_path, {}, every_s=10), []

    def save(done: int, parts: Any) -> None:
        saved.append(done)
        checkpoint.last = now[0]

    monkeypatch.setattr(checkpoint, "save", save)
    for _ in Epochs("test", 9, {}, checkpoint):
        now[0] += 4
    assert saved == [3, 6, 9]


def test_packing_gives_back_what_an_optimizer_and_a_schedule_hold() -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=7, cycle_momentum=False)
    network(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    draws = Draws(torch.Generator().manual_seed(3))
    for part in (optimizer, schedule, draws):
        tensors: dict[str, torch.Tensor] = {}
        state = part.state_dict()
        assert repr(unpacked(packed(state, tensors), tensors)) == repr(state)
    with pytest.raises(TypeError, match="cannot hold"):
        packed({"when": object()}, {})


@pytest.mark.parametrize("name", ["cfm", "lsfa", "m3dm", "ast"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_other_precisions_train_alike_and_are_in_force(name: str, precision: str) -> None:
    plain, rounded = (fitted(name, setup=TrainingSetup(precision=word))[1] for word in ("float32", precision))
    assert plain.keys() == rounded.keys() and torch.get_float32_matmul_precision() == "highest"
    losses = [key for key in plain if not key.startswith(("rank", "scale"))]
    for key in losses:
        assert rounded[key] == pytest.approx(plain[key], rel=0.1, abs=0.02)
    assert (rounded == plain) == (precision == "tf32")  # a processor computes in float32 all the same


def test_recomputed_adaptors_change_nothing() -> None:
    setup = TrainingSetup(preset=replace(CPU_PRESET, recompute_adaptors=True))
    plain, recomputed = fitted("lsfa"), fitted("lsfa", setup=setup)
    assert plain[1] == recomputed[1]


def test_compiled_networks_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: seen.append(dynamic) or function)
    assert fitted("cfm", setup=TrainingSetup(compiled=True))[1] == fitted("cfm")[1] and seen == [True]


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", "cpu") == "float32" and choose_precision("tf32", "cuda") == "tf32"
    for supported, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(training, "has_bf16", lambda s=supported: s)
        assert choose_precision("auto", "cuda") == expected
    with pytest.raises(InputError, match="half"):
        choose_precision("half", "cpu")
    with pytest.raises(InputError, match="int8"):
        TrainingSetup(precision="int8")


@pytest.mark.parametrize(("total_gb", "expected"), [(6, 8), (7.8, 8), (15.8, 16), (23.6, 24), (80, 24)])
def test_the_largest_preset_that_fits_is_taken(total_gb: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, total_gb * 1e9))
    assert choose_preset(None, "cuda").gpu_gb == expected and choose_preset(None, "cpu") == CPU_PRESET
    assert choose_preset(16, "cuda") == GPU_PRESETS[16]


def test_presets_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(InputError, match="12"):
        choose_preset(12, "cuda")
    with pytest.raises(InputError, match="no effect on device cpu"):
        choose_preset(8, "cpu")


def test_too_little_memory_is_told_before_the_training_with_what_would_fit() -> None:
    needs = {8: 3.0, 16: 7.0, 24: 13.0}
    check_memory("CFM training", needs, GPU_PRESETS[16], free_gb=7.8)
    check_memory("CFM training", needs, CPU_PRESET, free_gb=0.1)
    with pytest.raises(InputError, match=r"about 13\.7 GB .* 8\.0 GB are free; set memory_gb: 16 in the profile"):
        check_memory("CFM training", needs, GPU_PRESETS[24], free_gb=8.0)
    with pytest.raises(InputError, match="free the GPU, or use one with more memory"):
        check_memory("CFM training", needs, GPU_PRESETS[8], free_gb=3.5)


def test_each_preset_fits_the_memory_it_is_meant_for_at_the_papers_sizes() -> None:
    sample = make_features(seed=0, height=224, width=224)
    whole = replace(sample, rgb_tokens=torch.zeros(768, 28, 28), xyz_tokens=torch.zeros(13, 1152))
    needs = mapping_needs([whole] * 244, CFM_PAPER, MappingMLP(768, 1152))
    cells = torch.ones(56, 56, dtype=torch.bool)
    patches = PatchSet(torch.zeros(1, 768), torch.zeros(1, 1152), cells, whole.foreground, "train/good/000")
    adaptors = adaptor_needs(LSFA_PAPER.adaptors, patches, 1)
    for gpu_gb in GPU_PRESETS:
        assert 0.5 < needs[gpu_gb] < gpu_gb - 1.2 and 1 < adaptors[gpu_gb] < gpu_gb - 1.2
    assert needs[8] < needs[16] < needs[24] and adaptors[8] < adaptors[16]


def test_trained_methods_say_so() -> None:
    assert all(config.trains for config in TRAINED.values())
    assert {field.name for field in dataclasses.fields(CFMConfig)}.isdisjoint({"setup", "precision"})
