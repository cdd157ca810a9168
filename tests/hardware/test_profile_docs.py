"""docs/hw-profiles.md says what the profiles are."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from edged.hardware.machine import _ISA
from edged.hardware.profile import profile_folders, read_profile, read_profiles
from edged.hardware.schema import Profile

SHIPPED = profile_folders()[0]
DOC = (Path(__file__).parents[2] / "docs/hw-profiles.md").read_text()


def keys(model: type[BaseModel]) -> set[str]:
    """Every key of the schema, those of the tables inside too."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            kinds += get_args(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind)
    return found


@pytest.mark.parametrize("key", sorted(keys(Profile) - {"path"}))
def test_every_key_is_explained(key: str) -> None:
    assert re.search(rf"`(\[+|[a-zA-Z.]+\.)?{key}(\.[a-zA-Z.]+|\]+)?`", DOC)


def test_every_name_of_an_instruction_set_is_given() -> None:
    assert [name for name in _ISA.values() if f"`{name}`" not in DOC] == []


@pytest.mark.parametrize("name", sorted(read_profiles([SHIPPED])))
def test_the_table_of_shipped_profiles_has_their_figures(name: str) -> None:
    profile = read_profile(name, [SHIPPED])
    row = next(line for line in DOC.splitlines() if line.startswith(f"| `{name}` |"))
    mib = profile.memory.vram_mib or profile.memory.total_mib
    decode = profile.bandwidth.decode_gb_per_s

    assert (f"| {mib} MiB" if mib else "| read |") in row
    assert (f"| {decode:g} GB/s |" if decode else "| measured |") in row
    assert row.endswith(f"| {profile.min_tokens_per_s:g} |")


def test_the_example_reads(tmp_path: Path) -> None:
    example = re.search(r"```toml\n# /etc/edged/hw_profiles/(\S+)\.toml\n(.*?)```", DOC, re.DOTALL)
    assert example
    (tmp_path / f"{example[1]}.toml").write_text(example[2])

    profile = read_profile(example[1], [SHIPPED, tmp_path])

    assert profile.memory.total_mib == 15700
    assert profile.engine.ubatch_tokens == 64  # of the one it extends
    assert profile.match[0].cpu_model == ("Intel(R) N100",)


def test_what_is_needed_without_extends_is_what_the_doc_says(tmp_path: Path) -> None:
    (tmp_path / "least.toml").write_text(
        'description = "least"\nmin_tokens_per_s = 3\nmemory.kept_for_system_mib = 512\n'
        "engine = { ubatch_tokens = 64, slots_max = 1 }\n"
    )

    assert read_profile("least", [tmp_path]).match == ()
