"""What a model's memory and speed depend on, whether or not its file is here.

A ``ModelShape`` comes from a file's header (``shape_of``) or from the catalogue
(``edged.models.catalogue``); sizing takes either and cannot tell them apart.
"""

from dataclasses import dataclass
from functools import cached_property

from edged.models.gguf_header import ArraySummary, Header, TensorInfo


@dataclass(frozen=True)
class ModelShape:
    """Counts are of weights or tokens; sizes in bytes stand in ``tensors``."""

    name: str
    architecture: str
    quantisation: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    rotated: int
    """How much of each head is rotated by rope."""
    vocabulary: int
    context_length: int
    original_context_length: int | None
    """Where longrope changes from its short to its long factors; ``None`` without longrope."""
    experts: int
    """0 in a dense model."""
    experts_used: int
    tokenizer: str
    merges: int
    tensors: tuple[TensorInfo, ...]
    file_bytes: int

    @cached_property
    def weights_bytes(self) -> int:
        """What the tensors fill."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @cached_property
    def is_tied(self) -> bool:
        """Whether the output uses the token embedding's weights."""
        return all(tensor.name != "output.weight" for tensor in self.tensors)


def shape_of(header: Header) -> ModelShape:
    """The shape of a file. Raises ``ModelFileError`` where the header lacks what decides it."""
    a = header.architecture
    heads = header.get_int(f"{a}.attention.head_count")
    hidden = header.get_int(f"{a}.embedding_length")
    head_size = header.get_int(f"{a}.attention.key_length", hidden // heads)
    embedding = header.tensors_by_name["token_embd.weight"]
    longrope = any(tensor.name.startswith("rope_factors") for tensor in header.tensors)
    merges = header.metadata.get("tokenizer.ggml.merges")
    return ModelShape(
        name=header.name,
        architecture=a,
        quantisation=header.quantisation,
        layers=header.get_int(f"{a}.block_count"),
        hidden=hidden,
        feed_forward=header.get_int(f"{a}.feed_forward_length"),
        heads=heads,
        kv_heads=header.get_int(f"{a}.attention.head_count_kv", heads),
        head_size=head_size,
        rotated=header.get_int(f"{a}.rope.dimension_count", head_size),
        vocabulary=embedding.shape[1],
        context_length=header.context_length,
        original_context_length=(
            header.get_int(f"{a}.rope.scaling.original_context_length", header.context_length)
            if longrope
            else None
        ),
        experts=header.get_int(f"{a}.expert_count", 0),
        experts_used=header.get_int(f"{a}.expert_used_count", 0),
        tokenizer=header.get_str("tokenizer.ggml.model", "none"),
        merges=merges.length if isinstance(merges, ArraySummary) else 0,
        tensors=header.tensors,
        file_bytes=header.file_bytes,
    )
