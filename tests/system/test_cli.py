"""The commands, as a user types them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bus_client import PATIENCE_S, BusClient
from node import Broker, Node, free_port, running

from edged.models.bundled import BUNDLED_MODEL


def edged(
    *arguments: str, port: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
    if port is not None:
        clean |= {"EDGED_MQTT__HOST": "127.0.0.1", "EDGED_MQTT__PORT": str(port)}
    return subprocess.run(
        [sys.executable, "-m", "edged", *arguments],
        env=clean | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def alone(tmp_path: Path):
    """A broker with one node, so that `ask` finds it by itself."""
    broker = Broker(tmp_path)
    broker.start()
    with running("only", broker.port, tmp_path, engine__name="echo") as node:
        yield node
    broker.stop()


def test_ask_finds_the_only_node_and_prints_its_answer(alone: Node) -> None:
    run = edged("ask", "Grüße aus dem Keller", port=alone.port)
    assert (run.returncode, run.stdout) == (0, "Grüße aus dem Keller\n")


def test_ask_json_prints_the_raw_messages(alone: Node) -> None:
    run = edged("ask", "--json", "hi", port=alone.port)
    types = [json.loads(line)["type"] for line in run.stdout.splitlines()]
    assert (types[0], types[-1]) == ("accepted", "done")


def test_ask_says_what_a_node_refuses(alone: Node) -> None:
    run = edged("ask", "--max-tokens", "99999999", "hi", port=alone.port)
    assert run.returncode == 1
    assert run.stderr.startswith("edged: invalid_request: max_tokens:")
    assert "Traceback" not in run.stderr


def test_ask_says_at_once_that_a_node_is_offline(alone: Node) -> None:
    alone.stop()
    named = edged("ask", "--node", "only", "hi", port=alone.port)
    assert (named.returncode, named.stderr) == (1, "edged: the node only is offline\n")
    unnamed = edged("ask", "hi", port=alone.port)
    assert "known and offline: only" in unnamed.stderr


def test_ask_wants_a_choice_where_there_are_several(broker: Broker, echo: Node, slow: Node) -> None:
    run = edged("ask", "hi", port=broker.port)
    assert "choose one with --node" in run.stderr
    assert edged("ask", "--node", "echo", "hi", port=broker.port).stdout == "hi\n"


def test_ctrl_c_cancels_the_prompt(broker: Broker, slow: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/slow/completion/#")
    environment = os.environ | {"EDGED_MQTT__PORT": str(broker.port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "edged", "ask", "--node", "slow", "x" * 200],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    client.wait_for(lambda got: got.json["type"] == "delta")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert errors == "[cancelled]\n"
    assert client.wait_for(lambda got: got.json["type"] == "done").json["finish_reason"] == (
        "cancelled"
    )


def test_status_shows_card_and_state(broker: Broker, echo: Node) -> None:
    run = edged("status", "--node", "echo", port=broker.port)
    assert run.returncode == 0
    for fact in ("echo", "online", "serving", "4096 tokens", "nominal"):
        assert fact in run.stdout
    nodes = json.loads(edged("status", "--node", "echo", "--json", port=broker.port).stdout)
    assert nodes[0]["card"]["model"] == "echo"


def test_status_does_not_show_the_past_of_a_node_that_is_away(alone: Node) -> None:
    alone.stop()
    run = edged("status", port=alone.port)
    assert "offline" in run.stdout
    assert "serving" not in run.stdout


def test_status_finds_each_node_of_a_large_fleet(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    names = [f"board-{number:03}" for number in range(500)]
    with BusClient(broker.port) as client:
        for name in names:
            for kind, text in (("card", {"model": "x" * 800}), ("state", {"level": "nominal"})):
                client.publish(f"edged/v1/{name}/{kind}", json.dumps(text), retain=True)
            client.publish(f"edged/v1/{name}/status", "online", retain=True)

    one = json.loads(edged("status", "--node", names[-1], "--json", port=broker.port).stdout)
    all_of_them = json.loads(edged("status", "--json", port=broker.port).stdout)
    broker.stop()

    assert [node["status"] for node in one] == ["online"]
    assert [node["name"] for node in all_of_them if node["state"] and node["status"]] == names


def test_without_a_broker_there_is_one_line_and_an_exit_code() -> None:
    run = edged("ask", "hi", port=free_port())
    assert run.returncode == 5
    assert run.stderr.startswith("edged: no broker at 127.0.0.1:")
    assert len(run.stderr.splitlines()) == 1


def test_a_traceback_comes_only_when_it_is_asked_for() -> None:
    run = edged("ask", "hi", port=free_port(), EDGED_DEBUG="1")
    assert "Traceback" in run.stderr
    assert "no broker at 127.0.0.1" in run.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text("[mqtt]\nprot = 1883\n")
    run = edged("--config", str(file), "config", "check")
    assert (run.returncode, run.stderr) == (2, "edged: settings: mqtt.prot: is not known\n")


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "edged.mqtt.password").write_text("hunter2")
    run = edged("config", "show", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert run.returncode == 0
    assert "hunter2" not in run.stdout
    assert 'password = "**********"' in run.stdout


def test_models_list_shows_the_bundled_model_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    run = edged("models", "list", str(tmp_path))
    assert run.returncode == 0
    assert "edged-tiny-phi3" in run.stdout
    assert "unusable" in run.stdout


def test_models_show_tells_the_shape() -> None:
    run = edged("models", "show")
    assert run.returncode == 0
    for fact in ("phi3", "Q4_0", "1024 tokens"):
        assert fact in run.stdout


def test_models_show_of_a_bad_file_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(BUNDLED_MODEL.read_bytes()[:100_000])
    run = edged("models", "show", str(file))
    assert run.returncode == 3
    assert len(run.stderr.splitlines()) == 1


def test_models_convert_writes_a_file_that_ctransformers_serves(
    broker: Broker, client: BusClient, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")  # comes with ctransformers
    target = tmp_path / "llama.gguf"
    run = edged("models", "convert", str(BUNDLED_MODEL), str(target))
    assert run.returncode == 0, run.stderr
    settings = {"engine__name": "ctransformers", "model__path": target}
    with running("converted", broker.port, tmp_path, **settings):
        assert "kitchen" in client.ask("converted", prompt="open the kitchen window")[-1]["text"]


def test_version_names_the_engines() -> None:
    run = edged("version")
    assert run.stdout.startswith("edged ")
    assert "llama-cpp-python" in run.stdout


def test_an_engine_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    run = edged("run", EDGED_ENGINE__NAME="vllm")

    assert run.returncode == 2
    assert (
        "engine.name: Input should be 'auto', 'llama_cpp', 'ctransformers' or 'echo'" in run.stderr
    )


@pytest.mark.parametrize("prompt", ['what\'s "up"?', "[bold]$HOME[/] `id`"])
def test_the_demo_shows_the_whole_way_and_leaves_nothing(tmp_path: Path, prompt: str) -> None:
    run = edged("demo", "--prompt", prompt, EDGED_ENGINE__NAME="echo", TMPDIR=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(prompt) == 2
    assert "Ask something else" in run.stdout
    assert list(tmp_path.iterdir()) == []
