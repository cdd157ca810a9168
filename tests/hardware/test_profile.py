"""Profiles: the shipped ones, what they inherit, and what a mistake in one says."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.hardware.profile import _File as File
from edged.hardware.profile import (
    _line,
    profile_folders,
    read_profile,
    read_profiles,
    survey,
)
from edged.hardware.schema import Profile, Stage

SHIPPED = profile_folders()[0]
NAMES = {
    "generic-aarch64",
    "generic-x86_64",
    "jetson-agx-orin-64gb",
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb",
    "pi4-8gb",
    "pi5-16gb",
    "pi5-8gb",
    "rtx3060-12gb",
}
SMALL = """\
description = "small"
min_tokens_per_s = 3

[memory]
total_mib = 4096
kept_for_system_mib = 1024

[engine]
ubatch_tokens = 64
slots_max = 2
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def mistake(folder: Path, name: str = "mine") -> str:
    with pytest.raises(ConfigError) as caught:
        read_profile(name, [SHIPPED, folder])
    return str(caught.value)


def test_nine_profiles_are_shipped_and_every_one_reads() -> None:
    found = survey([SHIPPED])

    assert (set(found.profiles), dict(found.broken)) == (NAMES, {})


@pytest.mark.parametrize("name", [*sorted(NAMES), "_jetson-orin"])
def test_every_number_of_a_shipped_profile_has_a_comment_with_its_source(name: str) -> None:
    lines = (SHIPPED / f"{name}.toml").read_text().splitlines()
    # Points and modes share the comment above the first; a cooling's stands beside its name.
    shared = ("threads = ", "watts = ", "decode = ", "prefill = ", "stages = ", "memory_mib = [")
    numbers = [line for line in lines if re.match(r"\w+ = \d", line)]
    coolings = [line for line in lines if line.startswith("[thermal.cooling.")]

    assert [
        line for line in [*numbers, *coolings] if "#" not in line and not line.startswith(shared)
    ] == []


def test_no_profile_claims_more_effective_bandwidth_than_peak() -> None:
    for profile in read_profiles([SHIPPED]).values():
        peak, decode = profile.bandwidth.peak_gb_per_s, profile.bandwidth.decode_gb_per_s
        assert (peak is None) == (decode is None)
        assert decode is None or 0.2 * (peak or 0) < decode < (peak or 0)


def test_a_profile_gives_bytes_where_its_file_says_mib_and_gb() -> None:
    pi = read_profile("pi5-8gb", [SHIPPED])

    assert pi.memory.total_bytes == 7942 * 2**20
    assert pi.memory.kept_for_system_bytes == 1024 * 2**20
    assert pi.bandwidth.decode_bytes_per_s == 10.3e9
    assert pi.thermal is not None
    assert pi.thermal.cooling["bare"].stages == (
        Stage(r_k_per_w=2, tau_s=12),
        Stage(r_k_per_w=10, tau_s=300),
    )


def test_the_generic_ones_leave_open_what_is_read_and_measured() -> None:
    generic = read_profile("generic-x86_64", [SHIPPED])

    assert generic.memory.total_bytes is None
    assert generic.bandwidth.decode_bytes_per_s is None
    assert generic.cpu.cores is None


def test_only_the_card_has_vram_and_only_the_jetsons_are_unified() -> None:
    profiles = read_profiles([SHIPPED])

    assert {name for name in NAMES if profiles[name].memory.vram_bytes} == {"rtx3060-12gb"}
    unified = {name for name in NAMES if profiles[name].memory.unified}
    assert unified == {name for name in NAMES if name.startswith("jetson")}
    assert {name for name in NAMES if profiles[name].gpu} == unified | {"rtx3060-12gb"}


def test_tables_are_merged_key_by_key_and_lists_are_replaced() -> None:
    large, small = (read_profile(name, [SHIPPED]) for name in ("pi5-16gb", "pi5-8gb"))

    assert large.memory.total_mib == 16215
    assert large.memory.kept_for_system_mib == small.memory.kept_for_system_mib
    assert [match.memory_mib for match in large.match] == [(15000, 16500)]


def test_what_begins_with_an_underscore_is_only_there_to_be_extended() -> None:
    assert (SHIPPED / "_jetson-orin.toml").exists()
    with pytest.raises(ConfigError, match="no hardware profile _jetson-orin"):
        read_profile("_jetson-orin", [SHIPPED])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"profile pi6; known are: generic-aarch64, .*rtx3060"):
        read_profile("pi6", [SHIPPED])


def test_a_file_of_the_operator_adds_a_profile(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", SMALL)

    mine = read_profile("mine", [SHIPPED, tmp_path])

    assert (mine.name, mine.path, mine.memory.total_mib) == ("mine", path, 4096)


def test_a_file_of_the_operator_wins_over_a_shipped_one_and_may_extend_it(tmp_path: Path) -> None:
    write(tmp_path, "pi5-8gb", 'extends = "pi5-8gb"\nmemory.kept_for_system_mib = 3000\n')

    mine = read_profile("pi5-8gb", [SHIPPED, tmp_path])

    assert (mine.memory.kept_for_system_mib, mine.memory.total_mib) == (3000, 7942)


def test_of_two_families_of_the_same_name_the_later_is_extended(tmp_path: Path) -> None:
    write(tmp_path / "a", "_family", SMALL)
    write(tmp_path / "a", "mine", 'extends = "_family"\n')
    write(tmp_path / "b", "_family", SMALL.replace("4096", "2048"))

    assert read_profile("mine", [tmp_path / "a", tmp_path / "b"]).memory.total_mib == 2048


def test_an_absent_folder_adds_nothing(tmp_path: Path) -> None:
    assert set(read_profiles([SHIPPED, tmp_path / "absent"])) == NAMES


def test_a_broken_file_leaves_the_others_usable_and_is_told_of(tmp_path: Path) -> None:
    write(tmp_path, "mine", SMALL + "\nslots = 2\n")
    write(tmp_path, "pi4-8gb", "description = ")

    found = survey([SHIPPED, tmp_path])

    assert set(found.profiles) == NAMES - {"pi4-8gb"}
    assert set(found.broken) == {"mine", "pi4-8gb"}
    assert read_profile("pi5-8gb", [SHIPPED, tmp_path]).memory.total_mib == 7942


MISTAKES = [
    ('description = "a"\nmin_tokens_per_s = = 3\n', 2, "Invalid value"),
    ('description = "a"\n[memory\n', 2, "Expected ']'"),
    ('description = """a\nb\n', 2, "Unterminated"),
    (SMALL + "slot_max = 2\n", 11, "engine.slot_max: is not known"),
    (SMALL + "[cpu]\n\n# all of them\ncores = 0\n", 14, "cpu.cores: Input should be greater"),
    (SMALL + "[cpu]\nisa = [\n  'neon',\n  3,\n]\n", 12, "cpu.isa.1: "),
    (SMALL + 'cmake.GGML_NATIVE = "ON"\ncmake.GGML_CUDA = true\n', 12, "engine.cmake.GGML_CUDA: "),
    (SMALL + "[[match]]\ncpu_model = ['a']\n[[match]]\ncpu = 'b'\n", 14, "match.1.cpu: is not"),
    (SMALL + "[[match]]\n", 11, "match.0: has no condition"),
    (SMALL + "[thermal]\nzone = 'x'\nact_c = 80\nsoft_c = 75\n", 11, "thermal: act_c, soft_c"),
    (SMALL + "[thermal.cooling.a]\nstages = [\n{ r_k_per_w = 1 }]\n", 11, "thermal.zone: Field re"),
    (SMALL.replace("slots_max = 2\n", ""), 8, "engine.slots_max: Field required"),
    (SMALL.replace('description = "small"\n', "# mine\n"), 1, "description: Field required"),
    (SMALL.replace("4096", "500"), 4, "memory: kept_for_system_mib leaves nothing"),
    (SMALL.replace("[memory]\n", "[memory]\nsize = 1\n"), 5, "memory.size: is not known"),
    ("name = 'mine'\n" + SMALL, 1, "name: is not known"),
    ("extends = 3\n" + SMALL, 1, "extends: should be a profile's name"),
    (SMALL.replace("\n\n[mem", "\nextends = 'pi6'\n[mem", 1), 3, "extends: there is no pi6; known"),
    ("memory = 3\n" + SMALL.replace("[memory]", "[cpu]"), 1, "memory: "),
]


@pytest.mark.parametrize(("text", "line", "says"), MISTAKES)
def test_a_mistake_names_file_and_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = write(tmp_path, "mine", text)

    said = mistake(tmp_path)

    assert said.startswith(f"hardware profile {path}, line {line}")
    assert says in said


def test_a_mistake_in_what_is_extended_names_that_file(tmp_path: Path) -> None:
    parent = write(tmp_path, "_family", SMALL.replace("slots_max = 2", "slots_max = 200"))
    write(tmp_path, "mine", 'extends = "_family"\n[engine]\nubatch_tokens = 512\n')

    assert mistake(tmp_path).startswith(f"hardware profile {parent}, line 10: engine.slots_max: ")


def test_what_replaces_a_value_is_to_blame_and_not_what_it_replaces(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", 'extends = "pi5-8gb"\n\n[cpu]\ncores = -4\n')

    assert mistake(tmp_path).startswith(f"hardware profile {path}, line 4: cpu.cores: ")


def test_a_circle_is_told_with_its_way(tmp_path: Path) -> None:
    path = write(tmp_path, "b", 'extends = "mine"\n')
    write(tmp_path, "mine", 'extends = "b"\n')

    assert mistake(tmp_path) == (
        f"hardware profile {path}, line 1: extends: goes round in a circle: mine → b → mine"
    )


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", "")
    path.write_bytes(b"# one\n# two \xff\n")

    assert mistake(tmp_path) == f"hardware profile {path}, line 2: it is not UTF-8"


def test_lines_count_the_same_in_a_file_from_another_system(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", "")
    path.write_bytes((SMALL + "slot_max = 2\n").replace("\n", "\r\n").encode())

    assert mistake(tmp_path) == f"hardware profile {path}, line 11: engine.slot_max: is not known"


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()

    assert "mine.toml cannot be read: Is a directory" in mistake(tmp_path)


def test_a_name_that_is_no_topic_level_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "my board", SMALL)

    assert "the file's name may hold" in mistake(tmp_path, "my board")


@given(st.permutations(["memory", "engine", "cpu", "gpu"]), st.integers(0, 3), st.data())
def test_the_line_of_a_key_is_found_wherever_its_table_stands(
    tables: list[str], blank: int, data: st.DataObject
) -> None:
    lines: list[str] = []
    where = {}
    for table in tables:
        lines += ["# comment = 1"] * blank + [f"[{table}]"]
        for key in data.draw(st.permutations(["a", "b", "c"])):
            lines += [f"{key} = [", '  "]", # = ', "]"] if key == "b" else [f"{key} = 1"]
            where[table, key] = len(lines) - (2 if key == "b" else 0)
    text = "\n".join(lines)
    file = File(Path("x"), text, tomllib.loads(text))

    assert {key: _line(file, key) for key in where} == where


def test_a_profile_cannot_be_changed() -> None:
    assert Profile.model_config["frozen"] is True
