"""AST (Rudolph et al., "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection", WACV 2023).

A normalizing flow, the teacher, learns the density of normal feature maps; a plain network, the student, learns to give
the flow's output. Where the two differ there is a defect. [paper] is its text, [released] the authors' public code; we
know both from notes on them. Letters: B batch, C channels of features and depth together, h w grid, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.config import check_choice, check_not_negative, check_positive
from lib.errors import InputError
from lib.features import Features
from lib.grids import bilinear_resize
from lib.heads import Prediction
from lib.heads.checkpoints import Checkpoint, Curves, Draws
from lib.heads.epochs import Epochs
from lib.heads.flow import Flow, Student, position_encoding, token_map
from lib.heads.state import State, joined, part_of
from lib.methods import MethodSettings
from lib.patches import enlarged_mask, touched_cells
from lib.training import DEFAULT_SETUP, TrainingSetup, take_step


@dataclass(frozen=True)
class ASTConfig(MethodSettings):
    """Settings of AST; it reads the extractors `depth` or `depth_corners` on the 3D side.

    Attributes:
        inputs: what the networks see: "both", "rgb" or "xyz" [paper].
        mask: cells that count in losses and scores: "foreground" = those that touch the object as every method of this
            study sees it [ours; AST dilates its mask by eight of its 192 pixels, which comes to about the same], or
            "depth" = those whose depth is not all background, which needs features that were not standardized
            [released].
        num_couplings: of the flow, 4 [released].
        hidden_dim: channels within its subnets, 64 [released].
        kernel, last_kernel: side of their convolutions in all couplings but the last, 3, and in the last, 5 [released].
        clamp: largest log-scale of a coupling, 1.9 [released].
        position_dim: channels of the position encoding that both networks see, 32 [released].
        student_width: channels within the student, 1024 [released].
        num_residual_blocks: of the student, 4 [released].
        teacher_epochs, student_epochs: 72 each [released].
        learning_rate: of Adam, 2e-4 [released].
        weight_decay: of Adam, 1e-5 [released].
        batch_size: 8; an incomplete last batch is left out [released], unless it is the only one [ours].
    """

    head_class = "lib.heads.ast:AST"
    trains = True
    variants = ("max", "mean")

    inputs: str = "both"
    mask: str = "depth"
    num_couplings: int = 4
    hidden_dim: int = 64
    kernel: int = 3
    last_kernel: int = 5
    clamp: float = 1.9
    position_dim: int = 32
    student_width: int = 1024
    num_residual_blocks: int = 4
    teacher_epochs: int = 72
    student_epochs: int = 72
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_choice("inputs", self.inputs, ("both", "rgb", "xyz"))
        check_choice("mask", self.mask, ("foreground", "depth"))
        sizes = ("num_couplings", "hidden_dim", "kernel", "last_kernel", "position_dim", "student_width")
        check_positive(self, (*sizes, "num_residual_blocks", "batch_size"), whole=True)
        check_not_negative(self, ("teacher_epochs", "student_epochs"), whole=True)
        check_positive(self, ("clamp", "learning_rate"))
        check_not_negative(self, ("weight_decay",))
        if self.kernel % 2 == 0 or self.last_kernel % 2 == 0:
            raise InputError(f"kernel {self.kernel} and last_kernel {self.last_kernel}: give odd sides")
        if self.position_dim % 4:
            raise InputError(f"position_dim is {self.position_dim}; give a multiple of 4")

    @property
    def needs_raw(self) -> bool:
        """The background's depth is known by its zeros, which standardization moves."""
        return self.mask == "depth"


AST_PAPER = ASTConfig()
# Chosen on data seed 11: there twice as many epochs cost twice the time and found no more.
AST_DEMO = ASTConfig(
    mask="foreground", student_width=96, teacher_epochs=20, student_epochs=20, learning_rate=1e-3, batch_size=4
)
AST_DEMO_OWN = replace(AST_DEMO, mask="depth")


class AST:
    """Teacher and student, and the map of their difference."""

    variants = ASTConfig.variants

    def __init__(self, config: ASTConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.channels = {"both": rgb_dim + xyz_dim, "rgb": rgb_dim, "xyz": xyz_dim}[config.inputs]
        self._build(seed=0)

    def _build(self, seed: int) -> None:
        """Fresh networks."""
        config = self.config
        kernels = [config.kernel] * (config.num_couplings - 1) + [config.last_kernel]
        flow = Flow(self.channels, config.position_dim, config.hidden_dim, kernels, config.clamp, seed)
        student = Student(
            self.channels, config.position_dim, config.student_width, config.num_residual_blocks, seed + 1
        )
        self.teacher, self.student = flow.to(self.device).eval(), student.to(self.device).eval()

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """Curves of training the teacher and then the student: mean loss of each epoch.

        Args:
            features: normal training samples.
            seed: of the networks and of the order of samples.
            progress: show a bar over epochs.
            setup: how it is computed; half precision stays with the student, because the flow multiplies exponentials.
            checkpoint: where the states of both trainings are kept.

        Returns:
            "teacher": negative log-likelihood for each channel, without its constant; "student": squared error.
        """
        if not features:
            raise InputError("AST: no training features; check that the category has training samples")
        self._build(seed)
        read = [self.read(sample) for sample in features]
        maps, masks = (torch.stack(tensors).to(self.device) for tensors in zip(*read, strict=True))
        generator = torch.Generator().manual_seed(seed)

        def likelihood(rows: Tensor) -> Tensor:
            return self._likelihood(maps[rows], masks[rows])

        def imitation(rows: Tensor) -> Tensor:
            with setup.autocast(self.device):
                return self._imitation(maps[rows], targets[rows], masks[rows])

        with setup.products():
            unscaled = DEFAULT_SETUP.scaler(self.device)
            teacher = self._train("teacher", likelihood, len(maps), generator, unscaled, progress, checkpoint)
            targets = torch.cat([self._targets(batch) for batch in maps.split(self.config.batch_size)])
            scaler = setup.scaler(self.device)
            student = self._train("student", imitation, len(maps), generator, scaler, progress, checkpoint)
        return {"teacher": teacher, "student": student}

    def read(self, sample: Features) -> tuple[Tensor, Tensor]:
        """Input (C, h, w) float32 of the networks, and (h, w) bool, which of its cells count.

        RGB tokens are resized bilinearly to the depth's grid.

        Raises:
            InputError: the 3D tokens are no square grid, or no cell counts.
        """
        side = math.isqrt(len(sample.xyz_tokens))
        if side**2 != len(sample.xyz_tokens):
            raise InputError(
                f"AST: {sample.sample_id} has {len(sample.xyz_tokens)} 3D tokens, which are no square grid; "
                "use the extractor depth or depth_corners"
            )
        parts = {"rgb": bilinear_resize(sample.rgb_tokens, side), "xyz": token_map(sample.xyz_tokens)}
        seen = tuple(parts) if self.config.inputs == "both" else (self.config.inputs,)
        mask = parts["xyz"].ne(0).any(dim=0) if self.config.mask == "depth" else touched_cells(sample, side)
        if not mask.any():
            raise InputError(f"AST: {sample.sample_id} has no cell with depth; check the cloud and its preparation")
        return torch.cat([parts[name] for name in seen]), mask

    def _train(
        self,
        name: str,
        loss_of: Callable[[Tensor], Tensor],
        num_samples: int,
        generator: torch.Generator,
        scaler: torch.amp.GradScaler,
        progress: bool,
        checkpoint: Checkpoint | None,
    ) -> list[float]:
        """Mean loss of each epoch of training one network, "teacher" or "student", with Adam."""
        config, network = self.config, getattr(self, name)
        optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        curves = Curves({name: []})
        parts = {
            "network": network, "optimizer": optimizer, "draws": Draws(generator), "curves": curves, "scaler": scaler,
        }  # fmt: skip
        num_epochs = getattr(config, f"{name}_epochs")
        kept = checkpoint and checkpoint.part(name)
        epochs = Epochs(f"AST {name} epochs", num_epochs, parts, kept, progress)
        network.train()
        for epoch in epochs:
            losses = []
            for rows in full_batches(num_samples, config.batch_size, generator):
                loss = loss_of(rows.to(self.device))
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise InputError(f"AST: the {name}'s loss is not finite in epoch {epoch + 1}; lower learning_rate")
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                take_step(scaler, optimizer)
            curves[name].append(sum(losses) / len(losses))
            epochs.show(curves)
        if kept and epochs.done < num_epochs:
            kept.save(num_epochs, parts)  # the next network starts where this one's draws ended
        network.eval()
        return curves[name]

    def _condition(self, maps: Tensor) -> Tensor:
        """(B, P, h, w) float32 position encoding."""
        encoding = position_encoding(*maps.shape[2:], self.config.position_dim).to(maps)
        return encoding.expand(len(maps), -1, -1, -1)

    def _likelihood(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Negative log-likelihood under the flow, mean over the cells that count and over channels [paper]."""
        z, log_det = self.teacher(maps, self._condition(maps))
        return ((z.square().sum(dim=1) / 2 - log_det) * masks).sum() / masks.sum() / maps.shape[1]

    @torch.no_grad()
    def _targets(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) float32 of the teacher, which the student is to guess."""
        return self.teacher(maps, self._condition(maps))[0]

    def _imitation(self, maps: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
        """Squared difference of student and teacher, mean over the cells that count and over channels [paper]."""
        return (self._differences(maps, targets) * masks).sum() / masks.sum()

    def _differences(self, maps: Tensor, targets: Tensor) -> Tensor:
        """(B, h, w) float32 squared difference of student and teacher, mean over channels."""
        return (self.student(maps, self._condition(maps)).float() - targets).square().mean(dim=1)

    @torch.no_grad()
    def predict(self, sample: Features, variants: Sequence[str] = variants) -> dict[str, Prediction]:
        """Predictions of one sample: the map of differences, with its maximum [paper] or its mean as the image score.

        The maximum is taken over the cells that count before they are enlarged, as is the mean. The map is enlarged
        bicubically [released]; where that overshoots below 0 it is 0. It is cut to the object's pixels for the mask
        "foreground" [ours], and to the cells that count for "depth".
        """
        for name in variants:
            check_choice("AST variant", name, self.variants)
        maps, mask = self.read(sample)
        batch = maps[None].to(self.device)
        difference = self._differences(batch, self._targets(batch))[0].cpu() * mask
        scores = {"max": float(difference.max()), "mean": float(difference[mask].mean())}
        size = tuple(sample.foreground.shape)
        enlarged = F.interpolate(difference[None, None], size=size, mode="bicubic", align_corners=False)[0, 0]
        inside = sample.foreground if self.config.mask == "foreground" else enlarged_mask(mask, size)
        anomaly_map = enlarged.clamp_min(0) * inside
        return {name: Prediction(anomaly_map, scores[name]) for name in variants}

    def state(self) -> State:
        """Weights, permutations and batch statistics of both networks."""
        return joined({"teacher": self.teacher.state_dict(), "student": self.student.state_dict()})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.teacher.load_state_dict(part_of(state, "teacher"))
        self.student.load_state_dict(part_of(state, "student"))


def full_batches(num: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each batch of one epoch in random order; an incomplete last one is left out unless it is the only one."""
    order = torch.randperm(num, generator=generator)
    batches = order.split(batch_size)
    yield from (batch for batch in batches if len(batch) == batch_size or len(batches) == 1)
