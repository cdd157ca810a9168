"""What the model is trained through is exactly what ggml stores. Needs the training group."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training dependency group is not installed")

from gguf import GGMLQuantizationType, quants  # noqa: E402

from tools.tiny_model.model import Model, Shape, fake_q4_0  # noqa: E402


def test_fake_quantisation_is_ggmls_round_trip() -> None:
    torch.manual_seed(1)
    weights = torch.randn(64, 96) * 0.05
    weights[3] = 0
    stored = quants.quantize(weights.numpy(), GGMLQuantizationType.Q4_0)
    read_back = quants.dequantize(stored, GGMLQuantizationType.Q4_0)
    assert np.array_equal(fake_q4_0(weights).numpy(), read_back)


def test_gradients_pass_through_the_fake() -> None:
    weights = torch.randn(32, 32, requires_grad=True)
    fake_q4_0(weights).sum().backward()
    assert torch.equal(weights.grad, torch.ones(32, 32))


def test_every_matrix_fills_whole_blocks() -> None:
    shape = Shape()
    for parameter in Model(shape).parameters():
        assert all(size % 32 == 0 for size in parameter.shape)


def test_both_ways_of_attending_agree() -> None:
    torch.manual_seed(1)
    model = Model(Shape(vocabulary=64, hidden=64, layers=2, heads=2, feed_forward=64))
    ids = torch.randint(0, 64, (1, 300))
    with torch.no_grad():
        fused = model(ids)[:, :200]
        written_out = model(ids[:, :200])
    assert torch.allclose(fused, written_out, atol=1e-4)
