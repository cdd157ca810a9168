"""Checks of ``edged doctor``: what would be served now, and what is served."""

import json
import re
from pathlib import Path

import pytest
from gguf_files import write_phi3
from node import Broker, running

from edged.cli import checks_model, room
from edged.hardware.memory import Available
from edged.settings import load_settings
from tests.cli.findings import finds

pytestmark = pytest.mark.usefixtures("operator_folder")


def test_the_bundled_model_is_well_and_there_is_better() -> None:
    (finding,) = finds("model")

    assert finding.outcome == "ok"
    assert "the small one that comes with edged" in finding.found
    assert "edged plan" in (finding.remedy or "")


def test_too_little_memory_is_a_failure_with_both_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    little = Available(10 * 2**20, "memory.max of /edged.service", 2**33)
    monkeypatch.setattr("edged.engine.planning.available", lambda: little)

    (finding,) = finds("model")

    assert finding.outcome == "failure"
    assert re.search(
        r"needs \d+ MiB at the least \(with .*\), 10 MiB are available "
        r"\(memory.max of /edged.service\)",
        finding.found,
    )
    assert "edged plan" in (finding.remedy or "")


def test_what_had_to_give_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    # Enough for the machine's plan of several slots and a cache in f16, no more.
    settings = load_settings()
    needs = int(re.search(r"cache, (\d+) MiB", finds("model")[0].found)[1])  # type: ignore[index]
    tight = Available((needs - 4) * 2**20, "MemAvailable", 2**33)
    monkeypatch.setattr("edged.engine.planning.available", lambda: tight)

    finding = checks_model.served(settings, room.Daemon())

    assert finding.outcome == "warning"
    assert "the plan had to give: q8_0 cache instead of f16" in finding.found


def test_weights_without_a_manifest_are_told_and_not_served(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    write_phi3(store / "half.gguf")

    entry, plan = finds("model")

    assert (entry.outcome, entry.found) == ("warning", "half: not verified: it has no manifest")
    assert f"edged models pull file:{store}/half.gguf" in (entry.remedy or "")
    assert (plan.outcome, "has no usable model" in plan.found) == ("failure", True)


def test_a_model_of_the_store_that_is_no_model_is_told_with_its_source(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "junk.gguf").write_bytes(b"GGUF" + bytes(8))
    manifest = {
        "name": "junk",
        "source": "hf:acme/phi/junk.gguf",
        "size_bytes": 12,
        "sha256": "0" * 64,
        "sha256_from": "computed",
        "pulled_at": "2026-05-01T09:30:00Z",
    }
    (store / "junk.json").write_text(json.dumps(manifest))

    entry, _ = finds("model")

    assert (entry.outcome, entry.found.startswith("junk: ")) == ("warning", True)
    assert "edged models pull hf:acme/phi/junk.gguf --name junk" in (entry.remedy or "")


def test_a_choice_that_did_not_serve_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/model.json").write_text(
        json.dumps({"model": None, "failed": "phi-4", "reason": "it gave no answer"})
    )

    told = finds("model")[0]

    assert told.outcome == "warning"
    assert told.found == "phi-4 was chosen last, and does not serve: it gave no answer"


def test_a_model_file_that_is_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_MODEL__PATH", "/nowhere/phi.gguf")

    (finding,) = finds("model")

    assert (finding.outcome, "/nowhere/phi.gguf" in finding.found) == ("failure", True)


def test_what_a_running_worker_holds_is_counted_without_pages_of_files(tmp_path: Path) -> None:
    for pid, status in (
        (100, "VmRSS:\t   40000 kB\nRssAnon:\t   30000 kB\nVmSwap:\t     100 kB\n"),
        (
            101,
            (
                "VmRSS:\t 3000000 kB\nRssAnon:\t 1000000 kB\nRssFile:\t 1999000 kB\n"
                "RssShmem:\t    1000 kB\nVmSwap:\t    2000 kB\n"
            ),
        ),
    ):
        (tmp_path / f"proc/{pid}/task/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/status").write_text(f"Name:\tedged\n{status}")
    (tmp_path / "proc/100/task/100/children").write_text("101 ")

    daemon = room.daemon_of(tmp_path, 100)

    assert daemon == room.Daemon(
        100, workers=1, held_bytes=1_001_000 * 1024, swapped_bytes=2_100 * 1024
    )


def test_a_running_daemon_is_found_with_its_worker(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_MQTT__PORT", str(broker.port))
    with running("ward", broker.port, tmp_path, model__store=tmp_path / "store") as node:
        (daemon,) = finds("daemon")
        (model,) = finds("model")

    assert re.fullmatch(
        rf"process {node.process.pid} runs; its worker holds [\d,]+ MiB", daemon.found
    )
    assert "that the running daemon's worker holds" in model.found
    assert finds("daemon")[0].found.startswith("none uses ")
