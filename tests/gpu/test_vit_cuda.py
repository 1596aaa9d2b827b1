"""RGB tokens agree between CPU and CUDA. Run by `make test-gpu`, not by `make test`."""

from __future__ import annotations

import pytest
import torch

from lib.extractors.vit import TimmExtractor

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("name", "num_blocks"),
    [
        ("dino_vitb8", None),
        ("dino_vits8", 4),
        ("dinov2_vitb14", 8),
        ("clip_vitb16", None),
        ("sam_vitb16", None),
        ("wide_resnet50_2", None),
        ("embedded_vit", None),
    ],
)
def test_tokens_agree_between_cpu_and_cuda(name: str, num_blocks: int | None) -> None:
    rgb = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    on_cpu, on_cuda = (
        TimmExtractor(name, num_blocks, "random", seed=3, device=device).tokens(rgb) for device in ("cpu", "cuda")
    )
    assert on_cuda.device.type == "cpu"
    torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-3, atol=1e-4)


def test_random_weights_leave_the_generator_of_cuda_alone() -> None:
    before = torch.cuda.get_rng_state()
    TimmExtractor("dino_vits8", 1, "random", seed=3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_cut_blocks_leave_the_memory_of_the_device() -> None:
    held = []
    for num_blocks in (12, 4, 1):
        before = torch.cuda.memory_allocated()
        extractor = TimmExtractor("dino_vits8", num_blocks, "random", device="cuda")
        held.append(torch.cuda.memory_allocated() - before)
        del extractor
    assert held[0] > 2 * held[1] > 4 * held[2]
