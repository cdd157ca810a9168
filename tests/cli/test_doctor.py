"""``edged doctor``: what is wrong, what to do, and what it comes to."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_files import write_phi3
from node import Broker, free_port, running
from pydantic import SecretStr

from edged.cli import checks, checks_bus, checks_engine, checks_model, doctor, room
from edged.cli.main import cli
from edged.errors import BrokerError
from edged.hardware import profile as profile_module
from edged.hardware.detect import Detection
from edged.hardware.gpu import Gpu
from edged.hardware.health import Finding, failure, not_applicable, ok, warning
from edged.hardware.memory import Available
from edged.hardware.profile import profile_folders, read_profile
from edged.settings import MqttSettings, Settings, load_settings, setting_paths

DOCUMENT = Path(__file__).parents[2] / "docs" / "doctor.md"


@pytest.fixture(autouse=True)
def operator_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, store, settings file and profiles of our own."""
    for name in [name for name in os.environ if name.upper().startswith("EDGED_")]:
        monkeypatch.delenv(name)
    for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("edged.settings.DEFAULT_CONFIG_PATH", tmp_path / "absent.toml")
    monkeypatch.setenv("EDGED_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("EDGED_MODEL__STORE", str(tmp_path / "store"))
    folder = tmp_path / "hw_profiles"
    folder.mkdir()
    monkeypatch.setattr(profile_module, "OPERATOR_FOLDER", folder)
    return folder


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the checks by these."""

    def instead(**given: Callable[[checks.Node], Iterator[Finding]]) -> None:
        monkeypatch.setattr(checks, "CHECKS", given)

    return instead


def edged(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def finds(name: str) -> list[Finding]:
    return checks.guarded(checks.CHECKS[name], checks.Node(None))


def saying(*findings: Finding) -> Callable[[checks.Node], Iterator[Finding]]:
    return lambda node: iter(findings)


# What it comes to


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ([ok("a"), not_applicable("b")], 0, "All is well."),
        ([ok("a"), warning("b")], 1, "edged works, with 1 warning."),
        (
            [warning("a"), failure("b"), warning("c")],
            2,
            "edged will not work: 1 failure and 2 warnings.",
        ),
    ],
)
def test_the_exit_code_and_the_last_line_say_what_it_comes_to(
    only: Callable[..., None], findings: list[Finding], code: int, last: str
) -> None:
    only(disk=saying(*findings))

    result = edged("doctor")

    assert result.exit_code == code
    assert result.output.splitlines()[-1] == last


def test_json_is_as_documented(only: Callable[..., None]) -> None:
    only(clock=saying(warning("late", "set it")), disk=saying(ok("room"), not_applicable("card")))

    result = edged("doctor", "--json")

    (documented,) = re.findall(r"## JSON\n\n(.*?)\n\n`", DOCUMENT.read_text(), re.DOTALL)
    answer = json.loads(result.output)
    assert result.exit_code == 1
    assert answer == {
        "outcome": "warning",
        "checks": [
            {"name": "clock", "outcome": "warning", "found": "late", "remedy": "set it"},
            {"name": "disk", "outcome": "ok", "found": "room", "remedy": None},
            {"name": "disk", "outcome": "not applicable", "found": "card", "remedy": None},
        ],
    }
    example = json.loads(documented)
    assert example.keys() == answer.keys()
    assert example["checks"][0].keys() == answer["checks"][0].keys()


def test_every_check_is_documented_in_its_order() -> None:
    table = DOCUMENT.read_text().partition("## What is checked")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(checks.CHECKS)


# What it looks like


def test_remedies_stand_below_with_the_name_of_their_check(only: Callable[..., None]) -> None:
    only(broker=saying(failure("nothing listens", "start it")), disk=saying(ok("room")))

    assert edged("doctor").output == (
        "✗ broker        nothing listens\n"
        "✓ disk          room\n"
        "\n"
        "What to do:\n"
        "  broker        start it\n"
        "\n"
        "edged will not work: 1 failure.\n"
    )


def test_a_program_gets_each_finding_in_one_line(only: Callable[..., None]) -> None:
    only(disk=saying(warning("word " * 60, "more " * 60)))

    lines = edged("doctor").output.splitlines()

    assert [len(line.split()) for line in lines] == [62, 0, 3, 61, 0, 5]


def test_a_terminal_of_80_columns_is_enough() -> None:
    results = [("permissions", warning("word " * 60, "more " * 60))]

    lines = list(doctor._report(results, 80))

    plain = [re.sub("\x1b\\[\\d+m", "", line) for text in lines for line in text.splitlines()]
    assert max(map(len, plain)) <= 80
    assert sum("word" in line for line in plain) > 1


def test_a_terminal_without_our_signs_gets_others() -> None:
    assert doctor._printable("✓ ✗ – 50 °C", "ascii") == "+ x - 50 ?C"
    assert doctor._printable("✓ ✗ – 50 °C", "utf-8") == "✓ ✗ – 50 °C"


# Whatever is broken


def test_a_check_that_fails_itself_is_a_finding_and_stops_no_other(
    only: Callable[..., None],
) -> None:
    def broken(node: checks.Node) -> Iterator[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("by zero")

    only(disk=broken, swap=saying(ok("none")))

    result = edged("doctor")

    assert result.exit_code == 2
    assert "✓ disk          so far" in result.output
    assert "the check itself failed: ZeroDivisionError: by zero" in result.output
    assert "✓ swap          none" in result.output


def test_a_failure_that_edged_knows_is_told_in_its_words(only: Callable[..., None]) -> None:
    def broken(node: checks.Node) -> Iterator[Finding]:
        raise BrokerError("no broker at all")
        yield

    only(broker=broken)

    assert "✗ broker        no broker at all\n" in edged("doctor").output


def test_what_this_user_may_not_look_at_is_told_as_that(only: Callable[..., None]) -> None:
    def closed(node: checks.Node) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "/root/state")
        yield

    only(disk=closed)

    assert "/root/state may not be looked at by this user\n" in edged("doctor").output


def test_a_check_that_hangs_is_left_behind() -> None:
    gate = threading.Event()

    def hanging(node: checks.Node) -> Iterator[Finding]:
        gate.wait()
        yield ok("at last")

    findings = checks.guarded(hanging, checks.Node(None), limit_s=0.05)
    gate.set()

    assert findings == [failure("the check did not end within 0.05 s")]


def test_wrong_settings_are_a_failure_and_the_machine_is_checked_all_the_same(
    tmp_path: Path,
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text("[mqtt]\nport = 70000\n")

    result = edged("--config", str(config), "doctor", "--json")

    found = {each["name"]: each for each in json.loads(result.output)["checks"]}
    assert result.exit_code == 2
    assert "mqtt.port" in found["settings"]["found"]
    assert found["settings"]["remedy"] == "correct it, then: edged config check"
    for name in ("broker", "model", "disk", "permissions", "daemon"):
        assert found[name]["outcome"] == "not applicable"
    for name in ("profile", "cgroup", "pressure", "clock", "swap"):
        assert "settings" not in found[name]["found"]


def test_settings_that_break_pydantic_itself_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(config: Path | None) -> Settings:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(checks, "load_settings", homeless)

    (finding,) = finds("settings")

    assert finding.found == "settings: RuntimeError: Could not determine home directory."


def test_a_tool_that_looks_leaves_nothing_behind(tmp_path: Path) -> None:
    edged("doctor", "--json")

    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "store").exists()


# Credentials


def test_the_secrets_are_those_of_the_settings() -> None:
    sections: dict[str, Any] = dict(Settings.model_fields)
    secret = [
        path
        for path in setting_paths(Settings)
        if "." in path
        and SecretStr
        in getattr(
            sections[path.split(".")[0]].annotation.model_fields[path.split(".")[1]].annotation,
            "__args__",
            (),
        )
    ]

    assert sorted(secret) == sorted(checks_bus.SECRETS)


@pytest.mark.parametrize(("mode", "count"), [(0o644, 1), (0o640, 0), (0o600, 0)])
def test_a_password_in_a_file_for_everybody_is_a_warning(
    tmp_path: Path, mode: int, count: int
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('[mqtt]\nusername = "edged"\npassword = "x"\n')
    config.chmod(mode)

    findings = list(checks_bus.exposed_secrets(config))

    assert len(findings) == count
    for finding in findings:
        assert finding.outcome == "warning"
        subprocess.run(["sh", "-c", (finding.remedy or "").removeprefix("sudo ")], check=True)
        assert not config.stat().st_mode & stat.S_IROTH


def test_a_file_without_secrets_may_be_read_by_everybody(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('[mqtt]\nusername = "edged"\n')
    config.chmod(0o644)

    assert list(checks_bus.exposed_secrets(config)) == []


def test_a_credential_is_named_and_an_empty_one_told(tmp_path: Path) -> None:
    (tmp_path / "edged.mqtt.password").write_text("secret")
    (tmp_path / "edged.model.hub_token").write_text("")

    empty, all_of_them = checks_bus.credential_files(tmp_path, Path("/"))

    assert (empty.outcome, "edged.model.hub_token is empty" in empty.found) == ("warning", True)
    assert "edged.model.hub_token, edged.mqtt.password" in all_of_them.found
    assert "secret" not in all_of_them.found


def test_the_services_own_credentials_are_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "run/credentials/edged.service").mkdir(parents=True)

    (finding,) = checks_bus.credential_files(None, tmp_path)

    assert finding.outcome == "warning"
    assert "CREDENTIALS_DIRECTORY=/run/credentials/edged.service" in (finding.remedy or "")


def test_a_folder_of_credentials_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    (finding,) = checks_bus.credential_files(tmp_path / "gone", Path("/"))

    assert finding.outcome == "failure"


def test_a_user_without_password_is_a_warning_and_so_is_the_reverse() -> None:
    (user,) = checks_bus.user_and_password(MqttSettings(username="edged"))
    (password,) = checks_bus.user_and_password(MqttSettings(password=SecretStr("x")))

    assert "without a password" in user.found
    assert "not used without mqtt.username" in password.found
    assert not list(
        checks_bus.user_and_password(MqttSettings(username="edged", password=SecretStr("x")))
    )


# The broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Broker]:
    """One that lets in the user edged with the password right."""
    passwords = tmp_path / "passwd"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "edged", "right"], check=True)
    # Started by root, Mosquitto would give up the right to read what is pytest's.
    extra = f"allow_anonymous false\npassword_file {passwords}\nuser root\n"
    broker = Broker(tmp_path, extra)
    broker.start()
    yield broker
    broker.stop()


def at(port: int, **more: Any) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, **more)


@pytest.mark.parametrize(("protocol", "spoken"), [("auto", "5"), ("3.1.1", "3.1.1")])
def test_a_broker_that_lets_us_in_is_well(broker: Broker, protocol: str, spoken: str) -> None:
    finding = checks_bus.broker(at(broker.port, protocol=protocol))

    assert finding.outcome == "ok"
    assert re.fullmatch(
        rf"127.0.0.1:\d+ lets us in with MQTT {re.escape(spoken)}, after \d+ ms", finding.found
    )


def test_a_port_where_nothing_listens_is_refused() -> None:
    finding = checks_bus.broker(at(free_port()))

    assert (finding.outcome, "connection refused" in finding.found) == ("failure", True)
    assert "systemctl start mosquitto" in (finding.remedy or "")


def test_a_name_that_nobody_knows_is_told_as_that() -> None:
    finding = checks_bus.broker(MqttSettings(host="broker.invalid"))

    assert (finding.outcome, "broker.invalid is not known" in finding.found) == ("failure", True)


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_what_cannot_be_a_name_is_no_traceback(host: str) -> None:
    assert checks_bus.broker(MqttSettings(host=host)).outcome == "failure"


def test_a_broker_that_wants_a_user_says_how_to_give_one(guarded_broker: Broker) -> None:
    finding = checks_bus.broker(at(guarded_broker.port))

    assert (finding.outcome, "Not authorized" in finding.found) == ("failure", True)
    assert "set mqtt.username" in (finding.remedy or "")


def test_a_wrong_password_is_told_with_its_user_and_without_itself(
    guarded_broker: Broker,
) -> None:
    settings = at(guarded_broker.port, username="edged", password=SecretStr("wrong"))

    finding = checks_bus.broker(settings)

    assert finding.outcome == "failure"
    assert "password of edged" in (finding.remedy or "")
    assert "wrong" not in f"{finding.found}{finding.remedy}"


def test_the_right_password_is_let_in(guarded_broker: Broker) -> None:
    settings = at(guarded_broker.port, username="edged", password=SecretStr("right"))

    assert ", as edged, after" in checks_bus.broker(settings).found


def test_what_listens_and_is_no_broker_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.cli.bus.CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        finding = checks_bus.broker(at(silent.getsockname()[1]))

    assert (finding.outcome, "does not answer in MQTT" in finding.found) == ("failure", True)


# Engines


def test_the_engine_gives_a_token_and_is_held_against_the_processor() -> None:
    found = checks_engine.probe("llama_cpp")

    assert found.problem is None
    works, built = checks_engine.judge(found, Path("/"), "build", serves=True)
    assert re.fullmatch(r"llama_cpp \d+\.\d+\.\d+ works", works.found)
    assert built.outcome in ("ok", "warning")  # it works, so it has not too much


def test_a_library_that_kills_its_process_is_a_finding() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = checks_engine.told("llama_cpp", killed.stdout, killed.stderr, killed.returncode)

    (finding,) = checks_engine.judge(found, Path("/"), "build it anew", serves=True)

    assert finding == failure(
        "llama_cpp: it crashes while it is loaded (SIGILL): it was built for another processor",
        "build it anew",
    )


def test_a_library_that_crashes_later_is_told_with_its_version() -> None:
    loaded = '{"version": "0.3.36", "system_info": "", "gpu": false}\n'
    found = checks_engine.told("llama_cpp", loaded, "", -signal.SIGSEGV)

    (finding,) = checks_engine.judge(found, Path("/"), "", serves=True)

    assert finding.found == "llama_cpp 0.3.36: it crashes while it computes (SIGSEGV)"


def test_a_library_that_cannot_be_loaded_is_told_in_its_own_words() -> None:
    errors = "Traceback (most recent call last):\n  …\nOSError: libgomp.so.1: cannot open\n"

    found = checks_engine.told("llama_cpp", "", errors, 1)

    assert found.problem == "OSError: libgomp.so.1: cannot open"


def test_an_engine_that_does_not_serve_is_at_most_a_warning() -> None:
    found = checks_engine.told("ctransformers", "", "", -signal.SIGILL)

    (finding,) = checks_engine.judge(found, Path("/"), "", serves=False)

    assert finding.outcome == "warning"


@pytest.mark.parametrize(("serves", "outcome"), [(True, "failure"), (False, "not applicable")])
def test_an_engine_that_is_missing_matters_where_it_is_to_serve(serves: bool, outcome: str) -> None:
    found = checks_engine.probe("no_such_engine")
    assert not found.is_installed

    missing = checks_engine.Probe("llama_cpp", is_installed=False)
    (finding,) = checks_engine.judge(missing, Path("/"), "", serves=serves)

    assert finding.outcome == outcome
    assert not serves or finding.remedy == "pip install 'edged[llama-cpp]'"


def test_an_engine_is_built_anew_as_the_profile_says() -> None:
    found = checks_engine.Probe("llama_cpp", is_installed=True, version="0.3.36")
    orin = read_profile("jetson-orin-nano-8gb", profile_folders()[:1])

    command = checks_engine.rebuild(found, orin)

    assert "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=87" in command
    assert command.endswith("'llama-cpp-python==0.3.36'")


def test_an_engine_that_nobody_knows_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_ENGINE__NAME", "lama_cpp")

    (finding,) = finds("settings")

    assert finding.outcome == "failure"
    assert "engine.name" in finding.found


# GPUs


def with_gpu(profile: str) -> checks.Node:
    """This machine as if a GeForce were in it, under a profile."""
    node = checks.Node(None)
    card = Gpu("NVIDIA GeForce RTX 3060", 12288 * 2**20, 11500 * 2**20, "8.6", "550.54.14")
    found = replace(node.detection.machine, gpus=(card,), tegra_release="")
    chosen = read_profile(profile, profile_folders()[:1])
    node.detection = Detection(chosen, (), found)  # type: ignore[misc]  # read once, then kept
    return node


@pytest.mark.parametrize(
    ("sees_gpu", "backend", "outcome", "words"),
    [
        (True, True, "ok", "llama.cpp uses it"),
        (False, True, "warning", "was built for CUDA but finds no GPU"),
        (False, False, "warning", "was built without CUDA"),
    ],
)
def test_a_gpu_wants_an_engine_that_can_use_it(
    monkeypatch: pytest.MonkeyPatch, sees_gpu: bool, backend: bool, outcome: str, words: str
) -> None:
    probe = checks_engine.Probe("llama_cpp", True, "0.3.36", sees_gpu=sees_gpu)
    monkeypatch.setattr(checks_engine, "probe", lambda name: probe)
    monkeypatch.setattr(checks, "offload_is_built", lambda: backend)

    card, built = checks.guarded(checks.gpu, with_gpu("rtx3060-12gb"))

    assert card.found == "NVIDIA GeForce RTX 3060, driver 550.54.14"
    assert (built.outcome, words in built.found) == (outcome, True)
    assert ("-DGGML_CUDA=ON" in (built.remedy or "")) == (words == "was built without CUDA")


def test_a_gpu_that_no_profile_knows_is_a_warning() -> None:
    _, unknown = checks.guarded(checks.gpu, with_gpu("generic-x86_64"))

    assert (unknown.outcome, "knows of no GPU" in unknown.found) == ("warning", True)
    assert "docs/hw-profiles.md" in (unknown.remedy or "")


# Models


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


# Profiles


def test_the_profile_that_was_found_is_named_with_its_evidence() -> None:
    (finding,) = finds("profile")

    assert finding.outcome == "ok"
    assert ", known by " in finding.found


def test_the_profile_of_another_machine_is_a_warning_with_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGED_PROFILE", "pi5-16gb")

    (finding,) = finds("profile")

    assert finding.outcome == "warning"
    assert "profile is set to pi5-16gb (16,215 MiB), but this machine is " in finding.found
    assert re.match(r'write profile = "[\w-]+" in the settings', finding.remedy or "")


def test_a_profile_without_rules_is_the_operators_word(
    operator_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (operator_folder / "mine.toml").write_text('extends = "generic-x86_64"\nmatch = []\n')
    monkeypatch.setenv("EDGED_PROFILE", "mine")

    (finding,) = finds("profile")

    assert (finding.outcome, finding.found.startswith("mine, as set")) == ("ok", True)


def test_a_mistake_in_a_profile_is_told_with_its_line(operator_folder: Path) -> None:
    (operator_folder / "mine.toml").write_text('extends = "pi5-8gb"\ncolour = "white"\n')

    mistake, found = finds("profile")

    assert (mistake.outcome, "line 2: colour: is not known" in mistake.found) == ("warning", True)
    assert found.outcome == "ok"


def test_a_profile_that_is_set_and_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_PROFILE", "pi6")

    (finding,) = finds("profile")

    assert (finding.outcome, "there is no hardware profile pi6" in finding.found) == (
        "failure",
        True,
    )


# Permissions


def test_folders_that_are_to_be_made_are_well() -> None:
    assert [finding.outcome for finding in finds("permissions")][:2] == ["ok", "ok"]


def test_a_state_folder_that_is_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    assert finds("permissions")[0].outcome == "failure"


def test_what_this_user_may_not_do_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    # root, as which these tests may run, may do everything.
    monkeypatch.setattr("os.access", lambda path, mode: False)

    state, store, *_ = finds("permissions")

    assert (state.outcome, store.outcome) == ("failure", "failure")
    assert f'chown "$(id -un)" {tmp_path / "state"}' in (state.remedy or "")
    assert store.remedy == f"sudo chmod a+rx {tmp_path / 'store'}"


def test_a_state_folder_of_another_user_is_left_to_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "state", 1234, -1)
    owner = (tmp_path / "state").stat().st_uid
    monkeypatch.setattr("os.access", lambda path, mode: False)

    remedy = finds("permissions")[0].remedy or ""

    assert f"sudo -u '#{owner}' edged doctor" in remedy
