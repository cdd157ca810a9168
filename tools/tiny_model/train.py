"""Trains the model: batches of like length, AdamW, the last part through fake Q4_0."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from tools.tiny_model.model import Model, Shape
from tools.tiny_model.vocabulary import Encoded, Vocabulary

LOOK_EVERY = 100
"""Steps between two lines of output and two checkpoints."""

Batch = tuple[Tensor, Tensor]
"""Ids and the weight of predicting each, both [samples, length]."""


@dataclass(frozen=True)
class Recipe:
    """How it is trained."""

    epochs: float = 1.0
    batch_tokens: int = 2048
    peak_rate: float = 2.5e-3
    warm_up_steps: int = 150
    weight_decay: float = 0.05
    quantised_share: float = 0.4
    """Share of the steps, the last ones, whose forward pass sees Q4_0 weights."""
    prompt_weight: float = 0.05
    """Loss on the prompts, which teaches what sentences look like."""
    seed: int = 7
    threads: int = 2


def batches(samples: Sequence[Encoded], recipe: Recipe, longest: int) -> list[list[int]]:
    """Indices of samples of like length, `batch_tokens` of them with padding, in random order."""
    rng = random.Random(recipe.seed)
    order = list(range(len(samples)))
    rng.shuffle(order)
    kept = [i for i in order if len(samples[i].ids) <= longest]
    kept.sort(key=lambda i: len(samples[i].ids))
    groups: list[list[int]] = [[]]
    for i in kept:
        if len(groups[-1]) * len(samples[i].ids) >= recipe.batch_tokens:
            groups.append([])
        groups[-1].append(i)
    rng.shuffle(groups)
    return groups


def collate(samples: Sequence[Encoded], prompt_weight: float) -> Batch:
    """Pad on the right; padding weighs nothing."""
    length = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    weights = torch.zeros(len(samples), length)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        weights[row, : len(sample.ids)] = torch.tensor(
            [1.0 if mine else prompt_weight for mine in sample.answer]
        )
    return ids, weights


def loss_of(model: Model, batch: Batch) -> Tensor:
    """Weighted cross-entropy of the next token."""
    ids, weights = batch
    hidden = model(ids[:, :-1])
    targets, weights = ids[:, 1:], weights[:, 1:]
    seen = weights > 0
    logits = model.output(hidden[seen])
    losses = F.cross_entropy(logits.float(), targets[seen], reduction="none")
    return (losses * weights[seen]).sum() / weights[seen].sum()


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    if step < recipe.warm_up_steps:
        return recipe.peak_rate * (step + 1) / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(1, steps - recipe.warm_up_steps)
    return recipe.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16; one that does not is faster in float32."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(f in flags.read_text() for f in ("avx512_bf16", "amx_bf16"))


def optimiser(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; norms do not decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), eps=1e-9)


def train(
    conversations: Sequence[dict[str, Any]],
    vocabulary: Vocabulary,
    shape: Shape,
    recipe: Recipe,
    out: Path,
) -> float:
    """Train a model and write its checkpoint; returns the seconds that the steps took."""
    torch.manual_seed(recipe.seed)
    # The moments of tokens that never occur decay into denormal numbers, which are slow.
    torch.set_flush_denormal(True)
    torch.set_num_threads(recipe.threads)
    console = Console()
    samples = [vocabulary.chat(c["system"], c["turns"]) for c in conversations]
    order = batches(samples, recipe, shape.context)
    steps = int(len(order) * recipe.epochs)
    tokens = sum(len(sample.ids) for sample in samples)
    model = Model(shape)
    parameters = sum(p.numel() for p in model.parameters())
    half = has_bf16()
    console.print(
        f"{len(samples):,} samples, {tokens:,} tokens, {steps:,} steps, {parameters:,} parameters, "
        f"{'bfloat16' if half else 'float32'}"
    )
    optimise = optimiser(model, recipe)
    began = time.monotonic()
    shown = 0.0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=steps)
        for step in range(steps):
            model.quantise(step >= steps * (1 - recipe.quantised_share))
            for group in optimise.param_groups:
                group["lr"] = rate_at(step, steps, recipe)
            chosen = [samples[i] for i in order[step % len(order)]]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = loss_of(model, collate(chosen, recipe.prompt_weight))
            optimise.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimise.step()
            shown = loss.item() if step == 0 else 0.98 * shown + 0.02 * loss.item()
            progress.update(task, advance=1, description=f"training, loss {shown:.4f}")
            if step % LOOK_EVERY == 0 or step == steps - 1:
                seconds = time.monotonic() - began
                console.print(f"step {step:5d}  loss {shown:.4f}  {seconds:6.0f} s")
                _save(model, seconds, out)
    return time.monotonic() - began


def _save(model: Model, seconds: float, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    saved = {"shape": model.shape.as_dict(), "weights": model.state_dict(), "seconds": seconds}
    torch.save(saved, out)
