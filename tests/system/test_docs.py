"""What the documents tell people to do, done."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from bus_client import PATIENCE_S, BusClient
from node import Broker, running

from edged.errors import PromptFailure
from edged.settings import Settings, setting_paths
from edged.transports.body import Body

ROOT = Path(__file__).parents[2]


def code_blocks(file: str, language: str) -> list[str]:
    """The fenced blocks of a document in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL
    )


def shell_client() -> str:
    (block,) = [block for block in code_blocks("README.md", "sh") if "mosquitto_sub" in block]
    return block


@pytest.fixture
def command_line(broker: Broker, tmp_path: Path) -> dict[str, str]:
    """The environment in which mosquitto's clients find our broker without being told."""
    assert shutil.which("mosquitto_pub"), "tools/setup dev installs mosquitto-clients"
    for program in ("mosquitto_pub", "mosquitto_sub"):
        (tmp_path / program).write_text(f"-p {broker.port}\n")
    return os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}


@pytest.mark.parametrize("protocol", ["mqttv5", "mqttv311"])
def test_the_readmes_shell_client_gets_a_streamed_answer(
    broker: Broker, tmp_path: Path, command_line: dict[str, str], protocol: str
) -> None:
    script = tmp_path / "ask.sh"
    script.write_text(shell_client())
    for program in ("mosquitto_pub", "mosquitto_sub"):
        with (tmp_path / program).open("a") as options:
            options.write(f"-V {protocol}\n")
    with running("cupboard", broker.port, tmp_path, engine__name="echo"):
        run = subprocess.run(
            ["sh", str(script), "cupboard", "turn off the bedroom lamp"],
            env=command_line,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    replies = [json.loads(line) for line in run.stdout.splitlines()]
    assert replies[0]["type"] == "accepted"
    assert replies[-1]["type"] == "done"
    assert replies[-1]["text"] == "turn off the bedroom lamp"
    deltas = [reply["text"] for reply in replies if reply["type"] == "delta"]
    assert "".join(deltas) == "turn off the bedroom lamp"
    assert len(deltas) > 1


class HomeAssistant:
    """As much of Home Assistant as the documented configuration needs: its templates."""

    def __init__(self) -> None:
        self._jinja = jinja2.Environment(autoescape=False)
        self._jinja.filters["to_json"] = json.dumps
        self.configuration: dict[str, Any] = {"script": {}, "automation": []}
        for block in code_blocks("docs/home-assistant.md", "yaml"):
            loaded = yaml.safe_load(block)
            self.configuration["script"] |= loaded.get("script", {})
            self.configuration["automation"] += loaded.get("automation", [])
            self.configuration |= {k: v for k, v in loaded.items() if k == "mqtt"}

    def render(self, template: str, **variables: Any) -> str:
        return self._jinja.from_string(template).render(**variables)

    def automation(self, alias: str) -> dict[str, Any]:
        found: dict[str, Any] = next(
            each for each in self.configuration["automation"] if each["alias"] == alias
        )
        return found

    def runs(self, automation: dict[str, Any], reply: dict[str, Any]) -> bool:
        trigger = {"payload_json": reply}
        return all(
            self.render(condition["value_template"], trigger=trigger) == "True"
            for condition in automation["conditions"]
        )


@pytest.mark.parametrize("v5", [True, False], ids=["mqtt5", "mqtt311"])
def test_the_home_assistant_configuration_asks_and_hears_the_answer(
    broker: Broker, tmp_path: Path, v5: bool
) -> None:
    home = HomeAssistant()
    speak, show = (
        home.automation("Say what edged answers"),
        home.automation("Show what edged answered"),
    )
    publish = home.configuration["script"]["ask_edged"]["sequence"][0]["data"]
    question = 'Is "it" warm? I hope so. Good night!'
    payload = home.render(
        publish["payload"], question=question, context={"id": "01JD0Z8Z6W0S4V1N2Q3R4T5U6V"}
    )
    with (
        running("cupboard", broker.port, tmp_path, engine__name="echo"),
        BusClient(broker.port, v5=v5) as client,
    ):
        client.subscribe(speak["triggers"][0]["topic"])
        client.publish(publish["topic"], payload, qos=publish["qos"])
        replies = list(client.replies())
    said = [
        home.render(speak["actions"][0]["data"]["message"], trigger={"payload_json": reply})
        for reply in replies
        if home.runs(speak, reply)
    ]
    assert said == ['Is "it" warm? ', "I hope so. ", "Good night!"]
    shown = [
        home.render(show["actions"][0]["data"]["message"], trigger={"payload_json": reply})
        for reply in replies
        if home.runs(show, reply)
    ]
    assert shown == [question]


def test_the_home_assistant_sensors_read_what_the_node_retains(
    broker: Broker, tmp_path: Path
) -> None:
    home = HomeAssistant()
    online = home.configuration["mqtt"]["binary_sensor"][0]
    speed = home.configuration["mqtt"]["sensor"][0]
    with (
        running("cupboard", broker.port, tmp_path, engine__name="echo"),
        BusClient(broker.port) as client,
    ):
        client.subscribe(online["state_topic"])
        client.wait_for(lambda got: got.payload.decode() == online["payload_on"])
        client.subscribe(speed["state_topic"])
        got = client.wait_for(lambda got: got.topic == speed["state_topic"])
        assert float(home.render(speed["value_template"], value_json=got.json)) >= 0


def test_every_setting_stands_in_the_reference_and_no_other() -> None:
    table = (ROOT / "docs/settings.md").read_text().partition("| --- |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall("`([a-z_.]+)`", row)]
    assert sorted(documented) == sorted(setting_paths(Settings))


def test_every_failure_stands_in_the_wire_protocol_with_its_status() -> None:
    text = (ROOT / "docs/wire-protocol.md").read_text()
    for kind in PromptFailure.__subclasses__():
        retryable = "yes" if kind.retryable else "no"
        assert f"| `{kind.code}` | {kind.status} | {retryable}" in text


def test_every_field_of_a_prompt_stands_in_the_wire_protocol() -> None:
    section = (ROOT / "docs/wire-protocol.md").read_text().split("## Prompt")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall("`([a-z_]+)`", row)}
    assert documented == set(Body.model_fields)
