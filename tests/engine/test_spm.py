"""The tokenizer gives llama.cpp's ids: by public expectations, by hand and by comparison."""

import ctypes
import random
import time
from pathlib import Path

import gguf
import pytest

from edged.engine.spm import SpmTokenizer
from edged.errors import EngineUnavailable, ModelFileError
from edged.models.gguf import read_header

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ggml-vocab-phi-3.gguf"
real_vocabulary = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BYTES = 3  # the id of the token of byte 0
PIECES = {  # text and score; the ids follow those of the bytes
    "▁": -1.0,
    "h": -2.0,
    "e": -3.0,
    "l": -4.0,
    "o": -5.0,
    "he": -6.0,
    "ll": -7.0,
    "lo": -7.0,
    "hell": -8.0,
    "hello": -9.0,
    "▁hello": -10.0,
    "▁▁": -11.0,
    "世": -12.0,
}
SPECIAL = {
    "<|endoftext|>": CONTROL,
    "<|user|>": CONTROL,
    "<|end|>": CONTROL,
    "<|user|><|user|>": CONTROL,
    "[USER]": USER_DEFINED,
    "[OLD]": UNUSED,
    "<PRE>": NORMAL,
    "<|fim_pad|>": USER_DEFINED,
}
ID = {text: BYTES + 256 + index for index, text in enumerate([*PIECES, *SPECIAL])}


def write_vocabulary(
    path: Path,
    *,
    name: str = "Tiny",
    kind: str = "llama",
    pieces: dict[str, float] | None = None,
    **keys: bool | int,
) -> Path:
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_name(name)
    pieces = PIECES if pieces is None else pieces
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, USER_DEFINED, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    writer.add_tokenizer_model(kind)
    writer.add_token_list([*tokens, *pieces, *SPECIAL])
    writer.add_token_scores([*[0.0] * len(tokens), *pieces.values(), *[0.0] * len(SPECIAL)])
    writer.add_token_types([*types, *SPECIAL.values()])
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_uint32(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spm")


@pytest.fixture(scope="session")
def tiny(folder: Path) -> SpmTokenizer:
    return SpmTokenizer.from_header(write_vocabulary(folder / "tiny.gguf"))


@pytest.fixture(scope="session")
def phi3(folder: Path) -> SpmTokenizer:
    return SpmTokenizer.from_header(write_vocabulary(folder / "phi3.gguf", name="My Phi-3 mini"))


def ids(*tokens: str | int) -> list[int]:
    """Ids by text; a number is the value of a byte."""
    return [BYTES + token if isinstance(token, int) else ID[token] for token in tokens]


@real_vocabulary
def test_the_public_expectations_of_phi3_hold():
    tokenizer = SpmTokenizer.from_header(SHARED)
    texts = SHARED.with_suffix(".gguf.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = SHARED.with_suffix(".gguf.out").read_text().split("\n")
    expected = [[int(id_) for id_ in line.split()] for line in lines]
    assert len(expected) == 47
    assert [tokenizer.encode(text, parse_special=False) for text in texts] == expected


@real_vocabulary
def test_phi3_special_tokens_are_single_ids_and_swallow_white_space():
    tokenizer = SpmTokenizer.from_header(read_header(SHARED))
    assert tokenizer.encode("<|user|>\nHello<|end|>", parse_special=True) == [32010, 15043, 32007]
    assert tokenizer.eos_ids == {32000, 32007, 2}
    assert (tokenizer.bos_id, tokenizer.adds_bos, tokenizer.vocab_size) == (1, True, 32064)


@real_vocabulary
def test_a_requester_cannot_write_a_special_token_of_phi3():
    tokenizer = SpmTokenizer.from_header(SHARED)
    for text, id_ in tokenizer.special_ids.items():
        if text.startswith("<"):
            for written in (text, f" {text}", f"a{text}b"):
                assert id_ not in tokenizer.encode(written, parse_special=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("hello", ids("▁hello")),
        (" hello", ids("▁", "▁hello")),
        ("  hello", ids("▁▁", "▁hello")),
        ("hello hello", ids("▁hello", "▁hello")),
        ("hell", ids("▁", "hell")),
        ("helo", ids("▁", "he", "lo")),
        ("lllo", ids("▁", "ll", "lo")),
        ("lloo", ids("▁", "ll", "o", "o")),
        ("世", ids("▁", "世")),
        ("é", ids("▁", 0xC3, 0xA9)),
        ("a\n", ids("▁", ord("a"), 10)),
        ("he\0", ids("▁", "he", 0)),
        ("\ud800", ids("▁", 0xEF, 0xBF, 0xBD)),
        ("<s>", ids("▁", ord("<"), ord("s"), ord(">"))),
    ],
)
def test_texts_become_these_ids(tiny: SpmTokenizer, text: str, expected: list[int]):
    assert tiny.encode(text, parse_special=False) == expected


def test_control_tokens_are_text_unless_asked_for(tiny: SpmTokenizer):
    plain = tiny.encode("<|user|>", parse_special=False)
    assert plain == ids("▁", *map(ord, "<|us"), "e", *map(ord, "r|>"))
    assert tiny.encode("<|user|>", parse_special=True) == ids("<|user|>")
    assert tiny.encode("<unk><s>", parse_special=True) == [0, 1]


def test_user_defined_tokens_are_always_found(tiny: SpmTokenizer):
    for parse_special in (False, True):
        expected = ids("▁hello", "[USER]", "▁hello")
        assert tiny.encode("hello[USER]hello", parse_special=parse_special) == expected


def test_a_user_defined_token_that_ends_a_generation_is_a_control_token(tiny: SpmTokenizer):
    assert 2 not in tiny.encode("</s>", parse_special=False)
    assert tiny.encode("</s>", parse_special=True) == [2]


def test_the_longest_special_token_wins(tiny: SpmTokenizer):
    text = "<|user|><|user|><|user|>"
    assert tiny.encode(text, parse_special=True) == ids("<|user|><|user|>", "<|user|>")


def test_white_space_stays_unless_the_name_says_phi3(tiny: SpmTokenizer, phi3: SpmTokenizer):
    text = "<|user|> \n\t\v\f\r hello<|end|>\n"
    marked = ids("▁▁", 10, 9, 11, 12, 13, "▁hello")
    assert tiny.encode(text, parse_special=True) == [
        *ids("<|user|>"),
        *marked,
        *ids("<|end|>", "▁", 10),
    ]
    assert phi3.encode(text, parse_special=True) == ids("<|user|>", "▁hello", "<|end|>")


def test_phi3_keeps_white_space_after_three_tokens(phi3: SpmTokenizer):
    for text in ("<unk>", "<s>", "<|endoftext|>"):
        encoded = phi3.encode(f"{text}\nhello", parse_special=True)
        assert encoded[1:] == ids("▁", 10, "hello")
    assert phi3.encode("</s>\nhello", parse_special=True) == [2, *ids("▁hello")]
    assert phi3.encode("[USER]\u00a0", parse_special=True) == ids("[USER]", "▁", 0xC2, 0xA0)


def test_the_space_before_a_text_can_be_switched_off(folder: Path):
    path = write_vocabulary(folder / "bare.gguf", add_space_prefix=False, add_bos_token=False)
    tokenizer = SpmTokenizer.from_header(path)
    assert not tokenizer.adds_space_prefix
    assert not tokenizer.adds_bos
    assert tokenizer.encode("hello<|user|>hello", parse_special=True) == ids(
        "hello", "<|user|>", "hello"
    )


def test_what_tokens_add_to_an_answer(tiny: SpmTokenizer):
    assert [tiny.token_bytes(id_) for id_ in ids("▁hello", "▁▁", 0xC3, "世", "[USER]")] == [
        b" hello",
        b"  ",
        b"\xc3",
        "世".encode(),
        b"[USER]",
    ]
    assert {tiny.token_bytes(id_) for id_ in [0, 1, 2, *ids("<|end|>", "[OLD]")]} == {b""}
    for id_ in (-1, tiny.vocab_size):
        with pytest.raises(IndexError, match="vocabulary of"):
            tiny.token_bytes(id_)


def test_how_the_vocabulary_writes_tokens(tiny: SpmTokenizer):
    assert [tiny.token_text(id_) for id_ in (1, ID["▁hello"], ID["<|end|>"])] == [
        "<s>",
        "▁hello",
        "<|end|>",
    ]
    with pytest.raises(IndexError, match="vocabulary of"):
        tiny.token_text(-1)


def test_what_ends_a_generation(tiny: SpmTokenizer, folder: Path):
    assert tiny.eos_ids == {2, *(ID[text] for text in ("<|end|>", "<|endoftext|>", "<|fim_pad|>"))}
    assert tiny.eos_id == 2
    path = write_vocabulary(
        folder / "ends.gguf", eos_token_id=ID["<|user|>"], eot_token_id=ID["hello"]
    )
    other = SpmTokenizer.from_header(path)
    assert other.eos_id == ID["<|user|>"]
    assert other.eos_ids == {*tiny.eos_ids, ID["<|user|>"], ID["hello"]}


def test_other_vocabularies_are_refused_with_a_sentence(folder: Path):
    with pytest.raises(EngineUnavailable, match="'gpt2', not SentencePiece"):
        SpmTokenizer.from_header(write_vocabulary(folder / "gpt2.gguf", kind="gpt2"))


def test_a_score_that_is_no_number_is_refused(folder: Path):
    path = write_vocabulary(folder / "nan.gguf", pieces=PIECES | {"h": float("nan")})
    with pytest.raises(ModelFileError, match="not a number"):
        SpmTokenizer.from_header(path)


@pytest.mark.parametrize("text", ["hello ", "l", " ", "世", "<|user|>\n"])
def test_256_kib_take_seconds(phi3: SpmTokenizer, text: str):
    prompt = (text * (256 << 10))[: (256 << 10) // len(text.encode()) * len(text)]
    began = time.perf_counter()
    assert phi3.encode(prompt, parse_special=True)
    assert time.perf_counter() - began < 10


class LlamaCpp:
    """The reference, with nothing but the vocabulary loaded."""

    def __init__(self, path: Path) -> None:
        self.library = pytest.importorskip("llama_cpp")
        parameters = self.library.llama_model_default_params()
        parameters.vocab_only = True
        model = self.library.llama_model_load_from_file(str(path).encode(), parameters)
        self.vocabulary = self.library.llama_model_get_vocab(model)

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = self.library.llama_tokenize(
            self.vocabulary, raw, len(raw), room, len(room), False, parse_special
        )
        return list(room[:count])

    def token_bytes(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(1024)
        count = self.library.llama_token_to_piece(self.vocabulary, token, room, 1024, 0, False)
        return room.raw[:count]

    def ends(self, token: int) -> bool:
        return bool(self.library.llama_vocab_is_eog(self.vocabulary, token))


def random_text(dice: random.Random, tokenizer: SpmTokenizer) -> str:
    specials = list(tokenizer.special_ids)
    whites = [" ", "   ", "\n", "\t", "\r\n", "\v", "\0", "▁", "\u00a0", "\u3000", "\u0085"]
    parts = []
    for _ in range(dice.randrange(1, 25)):
        match dice.randrange(6):
            case 0:
                top = dice.choice((0x80, 0x800, 0xD800))
                parts.append(
                    chr(dice.choice((dice.randrange(top), dice.randrange(0xE000, 0x110000))))
                )
            case 1:
                parts.append(dice.choice(specials))
            case 2:
                parts.append(dice.choice(whites))
            case 3:
                parts.append(dice.choice(specials)[dice.randrange(3) : dice.randrange(3, 9)])
            case _:
                piece = tokenizer.token_bytes(dice.randrange(tokenizer.vocab_size))
                parts.append(piece.decode(errors="ignore"))
    return "".join(parts)


VOCABULARIES = ["tiny", "phi3", pytest.param("real", marks=real_vocabulary)]


@pytest.fixture
def vocabulary(which: str, folder: Path, tiny: SpmTokenizer, phi3: SpmTokenizer) -> Path:
    return SHARED if which == "real" else folder / f"{which}.gguf"


@pytest.mark.parametrize("which", VOCABULARIES)
def test_random_texts_become_llama_cpps_ids(which: str, vocabulary: Path):
    reference = LlamaCpp(vocabulary)
    tokenizer = SpmTokenizer.from_header(vocabulary)
    dice = random.Random(which)
    for _ in range(2000):
        text = random_text(dice, tokenizer)
        for parse_special in (False, True):
            expected = reference.encode(text, parse_special=parse_special)
            assert tokenizer.encode(text, parse_special=parse_special) == expected, text


@pytest.mark.parametrize("which", VOCABULARIES)
def test_every_token_is_what_it_is_to_llama_cpp(which: str, vocabulary: Path):
    reference = LlamaCpp(vocabulary)
    tokenizer = SpmTokenizer.from_header(vocabulary)
    for token in range(tokenizer.vocab_size):
        assert tokenizer.token_bytes(token) == reference.token_bytes(token)
        assert (token in tokenizer.eos_ids) == reference.ends(token)
