"""The Phi models that edged knows, whether or not a file of them is here.

``catalogue.toml`` is the data and says where each figure comes from; this is its schema and
what follows from it, above all the exact list of tensors (``Entry.shape``).
"""

import math
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from edged.errors import ConfigError, EngineUnavailable
from edged.models.gguf_header import TensorInfo
from edged.models.gguf_writer import ALIGNMENT, padded
from edged.models.quantisation import ROW_WEIGHTS, Quantisation, tensor_type
from edged.models.shape import ModelShape

_FILE: Final = Path(__file__).with_name("catalogue.toml")


class HubFile(BaseModel):
    """A public file: the hub's repository ("owner/name") and the name in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    file: str = Field(pattern=r"^[\w.-]+\.gguf$")
    size_bytes: PositiveInt | None = None
    """``None`` where no figure was seen."""
    imatrix: bool = False
    """Quantised with an importance matrix."""


class Entry(BaseModel):
    """One model; counts are of weights or tokens, names are those of ``ModelShape``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    rank: PositiveInt
    """Which of two models that fit is better: the higher."""
    unloadable: str | None = None
    """Why no engine can serve it; ``None`` where one can."""
    architecture: str
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_size: PositiveInt
    rotated: PositiveInt
    hidden: PositiveInt
    feed_forward: PositiveInt
    experts: int = Field(default=0, ge=0)
    experts_used: int = Field(default=0, ge=0)
    vocabulary: PositiveInt
    context_length: PositiveInt
    original_context_length: PositiveInt | None = None
    """Where longrope changes its factors; ``None`` without longrope."""
    rope_theta: PositiveFloat
    tied: bool = False
    """Whether the output uses the token embedding's weights."""
    tokenizer: Literal["llama", "gpt2"]
    pre: str
    """``tokenizer.ggml.pre``: how text is cut before the tokenizer merges."""
    merges: int = Field(default=0, ge=0)
    template: Literal["phi-3", "phi-4-mini", "phi-4"]
    """The chat format."""
    licence: str
    source: str
    """The hub's repository of the weights as they were published."""
    header_bytes: int = Field(default=0, ge=0, multiple_of=ALIGNMENT)
    """What stands before the weights in the public files."""
    files: dict[Quantisation, HubFile] = {}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.heads * self.head_size != self.hidden:
            raise ValueError(f"{self.name}: heads x head_size is not hidden ({self.hidden})")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.name}: {self.heads} heads share {self.kv_heads} KV heads")
        if self.hidden % ROW_WEIGHTS or self.feed_forward % ROW_WEIGHTS:
            raise ValueError(f"{self.name}: rows are no multiples of {ROW_WEIGHTS} weights")
        if bool(self.experts) is not (self.architecture == "phimoe"):
            raise ValueError(f"{self.name}: experts are what phimoe has, and nothing else")
        if (self.unloadable is None) is not (self.header_bytes > 0):
            raise ValueError(f"{self.name}: header_bytes belongs to every loadable model")
        return self

    def shape(self, quantisation: Quantisation) -> ModelShape:
        """What ``shape_of`` would say of a file of this model in ``quantisation``.

        The mix of types is that of the file in ``files``, and of the plain quantiser where
        there is none. Raises ``EngineUnavailable`` for a model that no engine can serve.
        """
        if self.unloadable is not None:
            raise EngineUnavailable(f"{self.title} cannot be served: {self.unloadable}")
        tensors = tuple(self._tensors(quantisation))
        last = tensors[-1]
        return ModelShape(
            name=self.name,
            architecture=self.architecture,
            quantisation=quantisation.upper(),
            layers=self.layers,
            hidden=self.hidden,
            feed_forward=self.feed_forward,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            rotated=self.rotated,
            vocabulary=self.vocabulary,
            context_length=self.context_length,
            original_context_length=self.original_context_length,
            experts=self.experts,
            experts_used=self.experts_used,
            tokenizer=self.tokenizer,
            merges=self.merges,
            tensors=tensors,
            file_bytes=last.offset_bytes + padded(last.size_bytes, ALIGNMENT),
        )

    def _tensors(self, quantisation: Quantisation) -> Iterator[TensorInfo]:
        file = self.files.get(quantisation)
        offset = self.header_bytes
        for name, shape in self._names_and_shapes():
            type_ = tensor_type(
                name,
                quantisation,
                layers=self.layers,
                dimensions=len(shape),
                tied=self.tied,
                imatrix=file is not None and file.imatrix,
            )
            size = math.prod(shape) // type_.block_weights * type_.block_bytes
            yield TensorInfo(name, shape, type_, offset, size)
            offset += padded(size, ALIGNMENT)

    def _names_and_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Source: src/models/phi3.cpp and phimoe.cpp of llama.cpp, and its converter."""
        yield "token_embd.weight", (self.hidden, self.vocabulary)
        if self.original_context_length is not None:
            yield "rope_factors_long.weight", (self.rotated // 2,)
            yield "rope_factors_short.weight", (self.rotated // 2,)
        layer = self._phimoe_layer if self.experts else self._phi3_layer
        for index in range(self.layers):
            for name, shape in layer():
                yield f"blk.{index}.{name}", shape
        yield "output_norm.weight", (self.hidden,)
        if not self.tied:
            yield "output.weight", (self.hidden, self.vocabulary)
        if self.experts:
            yield "output_norm.bias", (self.hidden,)
            yield "output.bias", (self.vocabulary,)

    def _phi3_layer(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, inner = self.hidden, self.feed_forward
        yield "attn_norm.weight", (hidden,)
        yield "attn_qkv.weight", (hidden, (self.heads + 2 * self.kv_heads) * self.head_size)
        yield "attn_output.weight", (hidden, hidden)
        yield "ffn_norm.weight", (hidden,)
        yield "ffn_up.weight", (hidden, 2 * inner)
        yield "ffn_down.weight", (inner, hidden)

    def _phimoe_layer(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, inner, experts = self.hidden, self.feed_forward, self.experts
        keys = self.kv_heads * self.head_size
        for name, columns, rows in (
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, keys),
            ("attn_v", hidden, keys),
            ("attn_output", hidden, hidden),
        ):
            yield f"{name}.weight", (columns, rows)
            yield f"{name}.bias", (rows,)
        for name in ("attn_norm", "ffn_norm"):
            yield f"{name}.weight", (hidden,)
            yield f"{name}.bias", (hidden,)
        yield "ffn_gate_inp.weight", (hidden, experts)
        yield "ffn_gate_exps.weight", (hidden, inner, experts)
        yield "ffn_up_exps.weight", (hidden, inner, experts)
        yield "ffn_down_exps.weight", (inner, hidden, experts)


class Catalogue(BaseModel):
    """All entries, the best first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Entry, ...]

    @model_validator(mode="after")
    def _is_an_order(self) -> Self:
        ranks = [entry.rank for entry in self.models]
        if ranks != sorted(set(ranks), reverse=True):
            raise ValueError("the entries stand by rank, the highest first, none twice")
        names = [entry.name for entry in self.models]
        if len(set(names)) < len(names):
            raise ValueError("two entries have the same name")
        return self

    def find(self, name: str) -> Entry:
        """The entry of that name, in capitals or not; ``ConfigError`` lists the known ones."""
        for entry in self.models:
            if entry.name == name.lower():
                return entry
        known = ", ".join(entry.name for entry in self.models)
        raise ConfigError(f"the catalogue has no model {name!r}; known are {known}")


@cache
def read_catalogue() -> Catalogue:
    """The catalogue that comes with edged."""
    with _FILE.open("rb") as file:
        return Catalogue.model_validate(tomllib.load(file))
