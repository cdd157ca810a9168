"""The Phi-3 architecture, as small as it gets, and the fake Q4_0 it is trained through."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

BLOCK = 32
"""Weights that share one scale in Q4_0."""


FUSED_FROM = 256
"""Tokens in a row above which the fused attention kernel wins."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; every matrix dimension is a multiple of `BLOCK`."""

    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 5
    heads: int = 8
    feed_forward: int = 640
    context: int = 1024
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Elements of one attention head."""
        return self.hidden // self.heads

    def as_dict(self) -> dict[str, int | float]:
        """For the checkpoint."""
        return asdict(self)


def fake_q4_0(weight: Tensor) -> Tensor:
    """What `weight` becomes after a round trip through ggml's Q4_0; gradients pass unchanged.

    Blocks of 32 along a row; the scale is the signed extreme / -8, stored as float16, while the
    levels are found with the unrounded scale (`quantize_row_q4_0_ref` of ggml).
    """
    with torch.no_grad():
        blocks = weight.reshape(-1, BLOCK)
        extreme = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
        scale = extreme / -8
        inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
        levels = torch.floor(blocks * inverse + 8.5).clamp_(0, 15)
        rounded = ((levels - 8) * scale.half().float()).reshape(weight.shape)
    return weight + (rounded - weight).detach()


class Norm(nn.Module):
    """Root-mean-square norm, in float32 as llama.cpp computes it."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.epsilon)
        return normed


class Linear(nn.Module):
    """A matrix without bias that may be seen through fake Q4_0."""

    def __init__(self, rows: int, columns: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns) * scale)
        self.quantised = False

    def seen(self) -> Tensor:
        """The weights as the forward pass uses them."""
        return fake_q4_0(self.weight) if self.quantised else self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.seen())


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, with Phi-3's fused matrices."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        spread = 0.02 / math.sqrt(2 * shape.layers)
        self.shape = shape
        self.attn_norm = Norm(shape.hidden, shape.norm_epsilon)
        self.attn_qkv = Linear(3 * shape.hidden, shape.hidden, 0.02)
        self.attn_output = Linear(shape.hidden, shape.hidden, spread)
        self.ffn_norm = Norm(shape.hidden, shape.norm_epsilon)
        self.ffn_up = Linear(2 * shape.feed_forward, shape.hidden, 0.02)
        self.ffn_down = Linear(shape.hidden, shape.feed_forward, spread)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        qkv = self.attn_qkv(self.attn_norm(x))
        qkv = qkv.view(batch, length, 3, self.shape.heads, self.shape.head_size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, hidden))
        gate, up = self.ffn_up(self.ffn_norm(x)).chunk(2, dim=-1)
        down: Tensor = self.ffn_down(F.silu(gate) * up)
        return x + down


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in the NeoX layout: element i pairs with i + d/2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; written out for short rows, where PyTorch's own is four times slower."""
    length = q.shape[-2]
    if length > FUSED_FROM:
        fused: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return fused
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    weights: Tensor = scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype)
    return weights @ v


class Model(nn.Module):
    """Token ids [batch, length] to the last hidden states; `output` makes logits of them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = Linear(shape.vocabulary, shape.hidden, 0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.hidden, shape.norm_epsilon)
        self.output = Linear(shape.vocabulary, shape.hidden, 0.02)
        half = shape.head_size // 2
        rates = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.outer(torch.arange(shape.context, dtype=torch.float32), rates)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self.token_embd.seen())
        cos = self.get_buffer("cos")[: ids.shape[1]]
        sin = self.get_buffer("sin")[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        normed: Tensor = self.output_norm(x)
        return normed

    def quantise(self, on: bool) -> None:
        """Switch every matrix between its own weights and their Q4_0 image."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.quantised = on
