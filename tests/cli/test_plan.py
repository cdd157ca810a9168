"""``edged plan``."""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edged.cli import plan as plan_module
from edged.cli.main import cli
from edged.errors import ConfigError, ModelFileError, OutOfMemory
from edged.hardware.memory import Available
from edged.models.bundled import BUNDLED_MODEL
from edged.models.selection import Selection, write_selection
from edged.models.store import Manifest, Store, sha256_of

DOC = Path(__file__).parents[2] / "docs/plan.md"
BOARDS = (
    *("pi5-8gb", "pi5-16gb", "pi4-8gb", "jetson-orin-nano-8gb", "jetson-orin-nx-16gb"),
    *("jetson-agx-orin-64gb", "rtx3060-12gb"),
)


@pytest.fixture(autouse=True)
def here(operator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose speed is known, with state and store of our own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("EDGED_PROFILE", "pi5-8gb")
    return tmp_path


@pytest.fixture
def store(here: Path) -> Store:
    folder = here / "store"
    folder.mkdir()
    return Store(folder)


def put(store: Store, name: str, catalogue: str | None) -> None:
    """The bundled model under another name."""
    shutil.copyfile(BUNDLED_MODEL, store.weights_path(name))
    store.adopt(
        Manifest(
            name=name,
            source=f"file:{BUNDLED_MODEL}",
            size_bytes=BUNDLED_MODEL.stat().st_size,
            sha256=sha256_of(BUNDLED_MODEL),
            sha256_from="computed",
            pulled_at=datetime.now(UTC),
            catalogue=catalogue,
        )
    )


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *arguments], catch_exceptions=False)


def plan(*arguments: str) -> dict[str, Any]:
    result = edged(*arguments, "--json")
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def flat(text: str) -> str:
    return " ".join(text.split())


def available(monkeypatch: pytest.MonkeyPatch, mib: int, limited_by: str) -> None:
    reading = Available(mib * 2**20, limited_by, 7942 * 2**20)
    monkeypatch.setattr(plan_module, "available", lambda: reading)


@pytest.mark.parametrize("profile", BOARDS)
def test_every_board_has_a_choice_of_a_phi_model_with_4096_tokens(profile: str):
    choice = plan("--profile", profile)["choice"]

    assert choice["model"].startswith("phi-")
    assert choice["ctx"] >= 4096
    assert choice["ctx"] <= choice["cells"] <= choice["ctx"] * choice["slots"]
    assert choice["kv_total_tokens"] == choice["cells"]
    memory = choice["memory"]
    parts = sum(memory[f"{part}_bytes"] for part in ("weights", "kv", "compute", "overhead"))
    assert parts == memory["total_bytes"] == memory["host_bytes"] + memory["gpu_bytes"]
    assert choice["reason"].startswith(f"{choice['model']} {choice['quant']} is the best")


def test_a_raspberry_pi_5_in_json():
    answer = plan("--profile", "pi5-8gb")
    choice, machine = answer["choice"], answer["machine"]

    assert (choice["model"], choice["quant"]) == ("phi-4-mini-instruct", "Q4_K_M")
    assert (choice["ctx"], choice["slots"], choice["cells"]) == (4096, 2, 8192)
    assert (choice["kv_type"], choice["flash_attention"]) == ("f16", True)
    assert (choice["gpu_layers"], choice["load_mode"]) == (0, "none")
    assert choice["threads"] == {"prefill": 4, "decode": 4}
    assert choice["file"] is None
    assert choice["memory"]["kv_bytes"] == 2 * 4096 * 128 * 1024
    assert 3 < choice["predicted"]["decode_tokens_per_s"] < 5
    assert machine["memory_bytes"] == (7942 - 1024) * 2**20
    assert choice["memory"]["total_bytes"] <= machine["memory_bytes"]
    assert machine["available_bytes"] is None
    assert answer["now"] is None


def test_an_rtx_3060_has_phi_4_on_its_own_memory():
    answer = plan("--profile", "rtx3060-12gb")
    choice, machine = answer["choice"], answer["machine"]

    assert choice["model"] == "phi-4"
    assert choice["gpu_layers"] == 41  # 40 and the output
    assert choice["memory"]["gpu_bytes"] <= machine["gpu_bytes"] == (12288 - 512) * 2**20
    assert not machine["unified"]


def test_an_orin_nano_shares_one_memory():
    answer = plan("--profile", "jetson-orin-nano-8gb")
    memory = answer["choice"]["memory"]

    assert answer["machine"]["unified"]
    assert answer["machine"]["gpu_bytes"] == 0
    assert memory["host_bytes"] + memory["gpu_bytes"] <= answer["machine"]["memory_bytes"]


def test_all_candidates_are_judged_the_best_first():
    candidates = plan("--profile", "pi5-8gb")["candidates"]

    ranks = [each["rank"] for each in candidates]
    assert ranks == sorted(ranks, reverse=True)
    assert {each["outcome"] for each in candidates} == {
        *("fits", "too large", "too slow", "not loadable"),
    }
    assert all(each["why"] for each in candidates)
    assert all((each["plan"] is None) is (each["outcome"] == "not loadable") for each in candidates)


def test_wishes_are_kept():
    answer = plan(
        *("--profile", "pi5-8gb", "--ctx", "8192", "--slots", "1", "--kv", "q8_0"),
        *("--model", "phi-3.5-mini-instruct:q4_0"),
    )

    choice = answer["choice"]
    assert (choice["ctx"], choice["slots"], choice["kv_type"]) == (8192, 1, "q8_0")
    assert choice["rope"] == "long"
    assert [each["quant"] for each in answer["candidates"]] == ["Q4_0"]
    assert answer["next"][-1] == (
        'on that board: in the settings, under [engine]: ctx = 8192, slots = 1, kv_type = "q8_0"'
    )


def test_a_name_without_a_quantisation_is_all_of_them():
    answer = plan("--profile", "pi5-8gb", "--model", "Phi-4-mini-instruct")

    assert [each["quant"] for each in answer["candidates"]] == ["Q8_0", "Q4_K_M", "Q4_0"]


def test_a_file_is_planned_by_its_header():
    choice = plan("--profile", "pi5-8gb", "--file", str(BUNDLED_MODEL))["choice"]

    assert choice["file"] == str(BUNDLED_MODEL)
    assert choice["catalogue"] is None


def test_a_broken_file_is_an_error(tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(BUNDLED_MODEL.read_bytes()[:10_000])

    with pytest.raises(ModelFileError, match=re.escape(str(broken))):
        edged("--file", str(broken))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "gpt-5"), "neither catalogue nor store has a model 'gpt-5'; known are: phi-4"),
        (("--model", "phi-4:q2_k"), "phi-4 is not known in q2_k; there are: q4_0, q4_k_m, q8_0"),
        (("--model", "phi-4", "--file", "x.gguf"), "give --model or --file, not both"),
        (("--profile", "pi6"), "there is no hardware profile pi6"),
        (("--profile", "generic-aarch64"), "plan on that machine"),
    ],
)
def test_what_is_not_known_is_an_error_that_lists_what_is(arguments: tuple[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        edged(*arguments)


def test_where_nothing_fits_the_error_has_the_numbers_and_json_is_whole():
    result = CliRunner().invoke(cli, ["plan", "--profile", "pi5-8gb", "--model", "phi-4", "--json"])

    assert result.exit_code != 0
    assert isinstance(result.exception, OutOfMemory)
    assert re.fullmatch(
        r"not enough memory: phi-4 Q4_0 needs [\d,]+ MiB at the least \(with 1024 tokens "
        r"a prompt, 2 at once in 1024, and q4_0 cache\), 6,918 MiB are available "
        r"\(pi5-8gb without the system's share\)",
        str(result.exception),
    )
    assert result.exception.details["available_bytes"] == 6918 * 2**20
    answer = json.loads(result.stdout)
    assert answer["choice"] is None
    assert "phi-4 Q8_0 needs" in answer["reason"]


def test_what_no_engine_serves_is_an_error_with_its_reason():
    with pytest.raises(ModelFileError, match=r"no architecture of llama\.cpp"):
        edged("--profile", "pi5-8gb", "--model", "phi-3-small-8k-instruct")


def test_a_model_that_is_only_slow_is_still_planned():
    answer = plan("--profile", "pi5-16gb", "--model", "phi-4")

    assert answer["choice"]["quant"] == "Q4_0"
    assert {each["outcome"] for each in answer["candidates"]} == {"too slow"}
    assert answer["choice"]["reason"].startswith("Nothing is fast enough; phi-4 Q4_0 comes nearest")


def test_here_the_choice_is_pulled_then_used():
    answer = plan()

    assert answer["machine"]["profile"] == "pi5-8gb"
    assert answer["machine"]["here"]
    assert answer["machine"]["available_bytes"] > 0
    pulled, used = answer["next"]
    name, quant = answer["choice"]["model"], answer["choice"]["quant"].lower()
    assert pulled == f"edged models pull {name}:{quant}"
    assert used == f"edged models use {name}-{quant}"


def test_what_is_in_the_store_stands_for_the_catalogues(store: Store):
    put(store, "mine", "phi-4-mini-instruct")
    mine = [each for each in plan()["candidates"] if each["file"]]

    (row,) = mine
    assert (row["model"], row["catalogue"], row["rank"]) == ("mine", "phi-4-mini-instruct", 60)
    quants = [each["quant"] for each in plan("--model", "phi-4-mini-instruct")["candidates"]]
    assert quants.count(row["quant"]) == 1
    output = edged("--model", "mine").output
    assert f"here: {store.weights_path('mine')}" in output
    assert "nothing to do: edged serves it" in output


def test_another_one_in_use_is_to_be_changed(store: Store, here: Path):
    put(store, "mine", None)
    write_selection(here / "state", Selection(model="other"))

    assert plan("--model", "mine")["next"] == ["edged models use mine"]


def test_a_path_that_is_set_goes_before_the_store(store: Store, monkeypatch: pytest.MonkeyPatch):
    put(store, "mine", None)
    monkeypatch.setenv("EDGED_MODEL__PATH", str(BUNDLED_MODEL))

    assert plan("--model", "mine")["next"][0].startswith("unset model.path")


def test_settings_of_this_node_count_here_and_not_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGED_ENGINE__CTX", "2048")

    assert plan()["choice"]["ctx"] == 2048
    assert plan("--profile", "pi5-8gb")["choice"]["ctx"] == 4096


def test_too_little_memory_at_this_moment_is_said_with_what_would_give(
    monkeypatch: pytest.MonkeyPatch,
):
    available(monkeypatch, 3100, "MemAvailable")
    answer = plan()

    assert answer["choice"]["model"] == "phi-4-mini-instruct"
    assert answer["machine"]["available_bytes"] == 3100 * 2**20
    assert not answer["now"]["fits"]
    assert answer["now"]["steps"]
    assert answer["now"]["plan"]["memory"]["total_bytes"] <= 3100 * 2**20
    assert f"would give way: {'; '.join(answer['now']['steps'])}" in flat(edged().output)


def test_no_memory_at_this_moment_is_said_too(monkeypatch: pytest.MonkeyPatch):
    available(monkeypatch, 500, "MemAvailable")

    assert plan()["now"]["needed_bytes"] > plan()["now"]["available_bytes"] == 500 * 2**20
    assert "500 MiB are available (MemAvailable)" in flat(edged().output)


def test_a_control_groups_limit_counts_like_any_shortage(monkeypatch: pytest.MonkeyPatch):
    available(monkeypatch, 3000, "memory.max of /edged")
    answer = plan()

    assert answer["machine"]["memory_bytes"] > 3000 * 2**20
    assert answer["machine"]["available_bytes"] == 3000 * 2**20
    assert answer["machine"]["available_limited_by"] == "memory.max of /edged"
    assert not answer["now"]["fits"]


def test_the_table_has_every_model_with_its_bar_and_why():
    lines = edged("--profile", "pi5-8gb").output.splitlines()

    assert lines[0] == "pi5-8gb: Raspberry Pi 5, 8 GB (by its profile alone)"
    assert "6,918 MiB at most = 7,942 MiB less 1,024 MiB for the system" in lines[1]
    (chosen,) = [line for line in lines if line.startswith("→")]
    assert re.search(r"✓ Q4_K_M +fits +█+▓+·+│ +3\.9 GiB +4096/8192 +f16 +4\.1/3\.4$", chosen)
    at = lines.index("phi-4") + 1
    assert re.search(r"✗ Q8_0 +too large +█+│█+» +14\.8 GiB", lines[at])
    assert lines[at + 1].strip().endswith("too much with 4096 tokens a prompt and q4_0 cache")
    assert "→" not in "".join(lines[:at])


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("profile", ["pi5-8gb", "rtx3060-12gb", "jetson-agx-orin-64gb"])
def test_lines_are_no_wider_than_the_screen_and_plain_in_a_pipe(
    profile: str, columns: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    output = edged("--profile", profile).output

    assert max(map(len, output.splitlines())) <= columns
    assert "\x1b" not in output


def test_a_bar_ends_within_its_limit_exactly_where_the_model_fits():
    answer = plan("--profile", "pi5-16gb")
    lines = edged("--profile", "pi5-16gb").output.splitlines()
    bars = [line for line in lines if re.match(r"[→ ] [✓✗~] ", line)]
    judged = [each for each in answer["candidates"] if each["plan"]]

    assert len(bars) == len(judged)
    for line, each in zip(bars, judged, strict=True):
        beyond = re.search(r"│([█▓▒░»]*)", line)
        assert beyond
        assert bool(beyond[1]) is (each["outcome"] == "too large"), line


def test_a_screen_without_unicode_gets_signs_of_ascii():
    result = CliRunner(charset="ascii").invoke(cli, ["plan", "--profile", "pi5-8gb"])

    assert result.exit_code == 0
    assert result.output.isascii()
    assert re.search(r"> \+ Q4_K_M  fits +#+=+_+\|", result.output)


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set()


def test_every_key_of_the_json_is_in_the_doc(monkeypatch: pytest.MonkeyPatch):
    available(monkeypatch, 3100, "MemAvailable")
    text = DOC.read_text()

    assert [
        key for key in sorted(keys(plan())) if not re.search(rf"`(\w+\.)?{key}[.`]", text)
    ] == []


def test_the_docs_example_is_what_the_command_prints():
    block = re.search(
        r"```text\n\$ edged plan --profile (\S+)\n(.*?)```", DOC.read_text(), re.DOTALL
    )
    assert block

    assert block[2] == edged("--profile", block[1]).output


def test_the_readmes_example_is_what_the_command_prints():
    readme = (DOC.parents[1] / "README.md").read_text()
    example = re.search(r"```text\n(choice .*?)```", readme, re.DOTALL)

    assert example
    assert example[1] in edged("--profile", "pi5-8gb").output
