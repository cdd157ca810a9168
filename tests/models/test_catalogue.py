"""The catalogue against what is known of the public files."""

from collections import Counter

import pytest
from pydantic import ValidationError

from edged.errors import ConfigError, EngineUnavailable
from edged.models.catalogue import Catalogue, Entry, read_catalogue
from edged.models.quantisation import Quantisation

MODELS = read_catalogue().models
LOADABLE = [entry for entry in MODELS if entry.unloadable is None]
MEASURED = [
    pytest.param(entry, quantisation, file.size_bytes, id=f"{entry.name}-{quantisation}")
    for entry in LOADABLE
    for quantisation, file in entry.files.items()
    if file.size_bytes
]


def find(name: str) -> Entry:
    return read_catalogue().find(name)


def changed(entry: Entry, **changes: object) -> dict[str, object]:
    return {**entry.model_dump(), **changes}


def types_of(entry: Entry, quantisation: Quantisation, part: str) -> list[str]:
    return [t.type.name for t in entry.shape(quantisation).tensors if part in t.name]


@pytest.mark.parametrize(("entry", "quantisation", "published"), MEASURED)
def test_a_shape_takes_the_bytes_of_the_public_file(
    entry: Entry, quantisation: Quantisation, published: int
):
    # Publishers add keys of their own, a few hundred bytes.
    assert abs(entry.shape(quantisation).file_bytes - published) < 512


@pytest.mark.parametrize(
    ("name", "quantisation", "gigabytes"),
    [
        ("phi-3-mini-4k-instruct", "q4_0", 2.18),
        ("phi-3-mini-4k-instruct", "q4_k_m", 2.39),
        ("phi-4-mini-instruct", "q4_0", 2.33),
        ("phi-4-mini-instruct", "q4_k_m", 2.49),
        ("phi-3-medium-4k-instruct", "q4_0", 7.9),
        ("phi-3-medium-128k-instruct", "q4_k_m", 8.57),
        ("phi-4", "q4_0", 8.41),
        ("phi-4", "q4_k_m", 9.05),
        ("phi-3.5-moe-instruct", "q4_0", 23.7),
        ("phi-3.5-moe-instruct", "q4_k_m", 25.3),
    ],
)
def test_sizes_are_those_that_publishers_name(
    name: str, quantisation: Quantisation, gigabytes: float
):
    assert find(name).shape(quantisation).file_bytes / 1e9 == pytest.approx(gigabytes, rel=0.005)


@pytest.mark.parametrize(
    ("name", "kibibytes"),
    [
        ("phi-3-mini-4k-instruct", 384),
        ("phi-3.5-mini-instruct", 384),
        ("phi-4-mini-instruct", 128),
        ("phi-3-medium-4k-instruct", 200),
        ("phi-4", 200),
        ("phi-3.5-moe-instruct", 128),
    ],
)
def test_a_token_takes_the_kv_cache_that_the_family_is_known_for(name: str, kibibytes: int):
    entry = find(name)
    assert 2 * entry.layers * entry.kv_heads * entry.head_size * 2 == kibibytes * 1024


def test_phi_3_mini_has_as_many_kv_heads_as_heads():
    for name in ("phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct", "phi-3.5-mini-instruct"):
        assert (find(name).heads, find(name).kv_heads) == (32, 32)


def test_phi_4s_q4_k_m_has_the_mix_that_llama_cpp_prints_of_the_public_file():
    # ggml-org/llama.cpp issue 12012
    kinds = Counter(tensor.type.name for tensor in find("phi-4").shape("q4_k_m").tensors)
    assert kinds == {"F32": 81, "Q4_K": 101, "Q5_K": 40, "Q6_K": 21}


def test_phimoe_has_as_many_unquantised_tensors_as_llama_cpp_prints_of_a_public_file():
    # ggml-org/llama.cpp pull request 11003
    kinds = Counter(
        tensor.type.name for tensor in find("phi-3.5-moe-instruct").shape("q4_k_m").tensors
    )
    assert (kinds["F32"], sum(kinds.values())) == (293, 519)


def test_a_tied_model_has_no_output_and_a_finer_embedding():
    shape = find("phi-4-mini-instruct").shape("q4_0")
    assert shape.is_tied
    assert types_of(find("phi-4-mini-instruct"), "q4_0", "token_embd") == ["Q6_K"]
    assert not find("phi-4").shape("q4_0").is_tied
    assert types_of(find("phi-4"), "q4_0", "token_embd") == ["Q4_0"]
    assert types_of(find("phi-4"), "q4_0", "output.weight")[-1] == "Q6_K"


def test_an_importance_matrix_raises_the_first_eighth_of_a_q4_0_file():
    assert types_of(find("phi-4"), "q4_0", "ffn_down") == ["Q4_1"] * 5 + ["Q4_0"] * 35
    assert set(types_of(find("phi-3-mini-4k-instruct"), "q4_0", "ffn_down")) == {"Q4_0"}


def test_q8_0_is_q8_0_throughout():
    kinds = {tensor.type.name for tensor in find("phi-4-mini-instruct").shape("q8_0").tensors}
    assert kinds == {"F32", "Q8_0"}


def test_longrope_models_have_factors_for_what_is_rotated():
    for entry in LOADABLE:
        shape = entry.shape("q4_0")
        factors = [t.shape for t in shape.tensors if t.name.startswith("rope_factors")]
        longrope = shape.original_context_length is not None
        assert factors == ([(entry.rotated // 2,)] * 2 if longrope else [])
        assert longrope is (entry.context_length == 131072)


def test_tensors_stand_back_to_back():
    for entry in LOADABLE:
        shape = entry.shape("q4_k_m")
        at = shape.tensors[0].offset_bytes
        for tensor in shape.tensors:
            assert tensor.offset_bytes == at
            at += tensor.size_bytes  # all are multiples of the alignment
        assert at == shape.file_bytes


def test_phi_3_small_is_known_and_says_why_it_cannot_be_loaded():
    entry = find("phi-3-small-8k-instruct")
    assert not entry.files
    with pytest.raises(EngineUnavailable, match=r"Phi-3-small.*no architecture of llama\.cpp"):
        entry.shape("q4_0")


def test_every_loadable_model_can_be_fetched_in_four_bits():
    for entry in LOADABLE:
        assert "q4_k_m" in entry.files


def test_a_name_is_found_in_capitals_too():
    assert find("PHI-4").name == "phi-4"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no model 'phi-5'; known are phi-4, phi-3\.5-moe"):
        find("phi-5")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head_size": 64}, "heads x head_size"),
        ({"kv_heads": 7}, "share 7 KV heads"),
        ({"feed_forward": 8000}, "no multiples of 256"),
        ({"experts": 16}, "experts are what phimoe has"),
        ({"header_bytes": 0}, "header_bytes belongs"),
        ({"header_bytes": 1000}, "multiple of 32"),
        ({"layers": 0}, "layers"),
        ({"tokeniser": "llama"}, "Extra inputs"),
        ({"files": {"q3_k_m": {"repository": "a/b", "file": "c.gguf"}}}, "q4_k_m"),
        ({"files": {"q4_0": {"repository": "a/../b", "file": "c.gguf"}}}, "repository"),
        ({"files": {"q4_0": {"repository": "a/b", "file": "../c.gguf"}}}, "file"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(changes: dict[str, object], reason: str):
    with pytest.raises(ValidationError, match=reason):
        Entry.model_validate(changed(find("phi-3-mini-4k-instruct"), **changes))


def test_entries_stand_by_rank_none_twice():
    better, worse = MODELS[0], MODELS[1]
    with pytest.raises(ValidationError, match="by rank"):
        Catalogue(models=(worse, better))
    with pytest.raises(ValidationError, match="by rank"):
        Catalogue(models=(better, better))


def test_two_entries_of_one_name_are_refused():
    namesake = Entry.model_validate(changed(MODELS[1], name=MODELS[0].name))
    with pytest.raises(ValidationError, match="same name"):
        Catalogue(models=(MODELS[0], namesake))
