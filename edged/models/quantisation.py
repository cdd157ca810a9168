"""Which type llama.cpp's quantiser gives each tensor of a Phi model.

Source: src/llama-quant.cpp of llama.cpp as it stood when the public files were made (2024
and 2025). Later releases give half of the ``attn_qkv`` tensors of a Q4_K_M file Q6_K and
the others Q4_K instead of Q5_K for all, 0.1 % more; no public Phi file is of that kind.
Only rows of a multiple of 256 weights are dealt with, which all Phi models have.
"""

from typing import Final, Literal

from edged.models.gguf_format import GGML_TYPES, GgmlType

Quantisation = Literal["q4_0", "q4_k_m", "q8_0"]

ROW_WEIGHTS: Final = 256
"""The weights of a row must be a multiple of this for the quantisations here."""

TYPES: Final = {type_.name: type_ for type_ in GGML_TYPES.values()}

_MOST: Final[dict[Quantisation, str]] = {"q4_0": "Q4_0", "q4_k_m": "Q4_K", "q8_0": "Q8_0"}


def tensor_type(
    name: str,
    quantisation: Quantisation,
    *,
    layers: int,
    dimensions: int,
    tied: bool = False,
    imatrix: bool = False,
) -> GgmlType:
    """The type of the tensor ``name`` in a model of ``layers`` layers.

    ``tied``: the output uses the token embedding. ``imatrix``: the file was quantised with
    an importance matrix, which changes some tensors of a Q4_0 file.
    """
    if dimensions == 1 or not name.endswith(".weight") or "ffn_gate_inp" in name:
        return TYPES["F32"]
    if quantisation != "q8_0" and (
        name == "output.weight" or (tied and name == "token_embd.weight")
    ):
        return TYPES["Q6_K"]
    if quantisation == "q4_k_m":
        return TYPES[_q4_k_m(name, layers)]
    if quantisation == "q4_0" and imatrix and "ffn_down" in name and _layer(name) < layers // 8:
        return TYPES["Q4_1"]
    return TYPES[_MOST[quantisation]]


def _q4_k_m(name: str, layers: int) -> str:
    if "attn_qkv" in name:
        return "Q5_K"
    if ("attn_v" in name or "ffn_down" in name) and _gets_more_bits(_layer(name), layers):
        return "Q6_K"
    return "Q4_K"


def _gets_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth, and a third of those between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _layer(name: str) -> int:
    """Of a tensor "blk.7.ffn_down.weight", 7."""
    return int(name.split(".")[1])
