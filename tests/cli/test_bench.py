"""``edged bench`` on the bundled model: real broker, real daemon, real engine."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edged.bench import comparison, servers
from edged.cli import bench as bench_module
from edged.cli.main import cli
from edged.engine.operating_points import OperatingPoints
from edged.errors import ConfigError, EdgedError, EngineUnavailable, ModelFileError
from edged.models.bundled import BUNDLED_MODEL

DOC = Path(__file__).parents[2] / "docs/bench.md"
SHORT = ("--rounds", "1", "--prompt-tokens", "20", "--tokens", "8")


@pytest.fixture(autouse=True)
def here(operator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State, store and temporary files of our own, and signals as they were."""
    monkeypatch.setenv("COLUMNS", "100")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments], catch_exceptions=False)


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set()


def test_edged_is_compared_with_its_engine_called_directly(here: Path):
    results = json.loads(edged(*SHORT, "--against", "direct", "--json", "-").stdout)

    for side in ("subject", "peer"):
        assert set(results[side]) == {
            *("prefill_tokens_per_s", "decode_tokens_per_s", "aggregate_tokens_per_s"),
            *("first_token_ms", "gap_ms"),
        }
        assert results[side]["aggregate_tokens_per_s"] > 0
        assert set(results[side]["gap_ms"]) == {"p50", "p99"}
    assert set(results["ratio"]) == {"min", "median", "max"}
    assert set(results["roofline"]) == {"bytes_a_token", "read_bytes_per_s", "ratio"}
    assert results["added_first_token_ms"]["prompts"] == 1
    assert results["conditions"]["model"] == BUNDLED_MODEL.name
    assert results["conditions"]["subject"]["engine"] == "llama_cpp"
    assert results["conditions"]["subject"]["speculates"]
    assert results["conditions"]["peer"]["name"] == "direct"
    text = DOC.read_text()
    unexplained = [key for key in keys(results) if not re.search(rf"`(\w+\.)*{key}[.`]", text)]
    assert sorted(unexplained) == []
    assert not any((here / "temporary").iterdir())


def test_what_threads_make_of_it_is_kept_for_plans(here: Path):
    results = json.loads(edged(*SHORT, "--save", "--json", "-").stdout)

    points = results["operating_points"]
    assert [each["threads"] for each in points["points"]][:1] == [1]
    assert Path(points["file"]) == here / "state/operating_points.toml"
    assert OperatingPoints.model_validate(points).best.decode == points["threads_decode"]
    text = DOC.read_text()
    assert [key for key in keys(points) if f"`{key}`" not in text] == []


def test_people_get_a_table_and_every_round_as_bars(here: Path):
    file = here / "results.json"
    output = edged(*SHORT, "--clients", "2", "--against", "direct", "--json", str(file)).stdout

    assert json.loads(file.read_text())["conditions"]["clients"] == 2
    assert output.startswith(f"{BUNDLED_MODEL.name}: edged-tiny-phi3, Q4_0, 2.6 MiB\n2 clients, ")
    assert re.search(r"median of the rounds +edged +direct +edged ÷ direct\n", output)
    assert re.search(r"\n  1  edged   █+ [\d,.]+\n     direct  █+ [\d,.]+  ÷ [\d.]+\n", output)
    assert re.search(r"\nratio  +[\d.]+ \(", output)
    assert max(map(len, output.splitlines())) <= 100
    assert "\x1b" not in output


def test_a_shape_is_written_for_the_time_of_the_measurement(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[Path] = []

    def write(_entry: object, _quant: str, target: Path) -> None:
        written.append(target)
        shutil.copyfile(BUNDLED_MODEL, target)

    monkeypatch.setattr(bench_module, "write_shape_file", write)
    monkeypatch.setattr(comparison, "RANDOM_WEIGHTS", "edged-tiny-phi3")
    shape = ("--shape", "phi-3-mini-4k-instruct", "--quant", "q4_0")
    results: dict[str, Any] = json.loads(edged(*SHORT, *shape, "--json", "-").stdout)

    assert results["conditions"]["model"] == "phi-3-mini-4k-instruct-q4_0.gguf"
    assert results["peer"] is None
    assert not results["conditions"]["subject"]["speculates"]
    assert written
    assert not any((here / "temporary").iterdir())


def test_a_missing_peer_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EngineUnavailable, match=r"install it with: pip install 'edged\[bench\]'"):
        edged("--against", "xllamacpp")


def test_without_matplotlib_no_chart_is_promised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_module.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EdgedError, match="pip install matplotlib"):
        edged("--png", "rounds.png")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--model", "a", "--shape", "b"), ConfigError, "give --model or --shape, not both"),
        (("--threads", "1", "--defaults"), ConfigError, "give --threads or --defaults, not both"),
        (("--model", "a"), ModelFileError, r"usable model of the store \(there: none\)"),
        (("--prompt-tokens", "2000"), ConfigError, "do not fit into the"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    arguments: tuple[str, ...], kind: type[EdgedError], message: str
):
    with pytest.raises(kind, match=message):
        edged(*arguments)
