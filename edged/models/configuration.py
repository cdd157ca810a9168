"""How a model is loaded: what a plan decides, sizing counts and an engine is told."""

from dataclasses import dataclass
from typing import Final, Literal

from edged.models.gguf_writer import padded

KvType = Literal["f16", "q8_0", "q4_0"]
LoadMode = Literal["none", "none-plain", "mmap"]
"""``none`` reads the file into memory and repacks it for this processor's kernels,
``none-plain`` leaves it as it is (slower prompts), ``mmap`` maps the file and repacks beside it."""

KV_TYPES: Final[tuple[KvType, ...]] = ("f16", "q8_0", "q4_0")
"""The most exact first."""
CTX_STEP: Final = 256
"""llama.cpp rounds a cache's cells up to this."""
MAX_BATCH_TOKENS: Final = 512
"""What an engine decodes in one call; wider ubatches than this are cut."""
SPARE_OUTPUTS: Final = 7
"""Tokens of a batch that may be drafted, beside one for each slot.

With the one before them they fill two blocks of the CPU's interleaved kernels.
"""


@dataclass(frozen=True)
class Configuration:
    """How a model is to be loaded.

    ``slots`` prompts are answered at the same time, each with up to ``ctx`` tokens of prompt and
    answer. They share a cache of ``cells`` tokens; what does not fit there waits.
    """

    engine: str
    ctx: int
    slots: int
    cells: int
    kv_type: KvType
    flash_attention: bool
    load_mode: LoadMode
    ubatch_tokens: int
    """Of a prompt, that are computed at once."""
    gpu_layers: int
    """The last so many; one more than there are takes the output too, as llama.cpp counts."""

    @property
    def padded_cells(self) -> int:
        """The cells that the cache really has."""
        return padded(self.cells, CTX_STEP)

    @property
    def outputs_max(self) -> int:
        """Tokens of one batch that may be sampled from."""
        return self.slots + SPARE_OUTPUTS
