"""The bundled model through the whole line, with each engine that has weights."""

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_client import BusClient
from node import Broker, Node, running

COMMAND = "turn off the bedroom lamp"


@pytest.fixture(scope="module", params=["llama_cpp", "ctransformers"])
def node(
    request: pytest.FixtureRequest, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    name = f"real-{request.param}"
    with running(name, broker.port, folder, engine__name=request.param) as node:
        yield node


def test_it_does_what_it_is_for(node: Node, client: BusClient) -> None:
    text = client.ask(node.name, prompt=COMMAND)[-1]["text"]
    assert {"lamp", "bedroom", "off"} <= set(text.lower().strip(".").split())
    assert not text.startswith(" ")


def test_greedy_decoding_is_reproducible(node: Node, client: BusClient) -> None:
    first, second = (client.ask(node.name, prompt=COMMAND)[-1] for _ in range(2))
    assert first["text"] == second["text"]
    assert first["seed"] != second["seed"]


def test_a_seed_reproduces_a_sample(node: Node, client: BusClient) -> None:
    body = {"prompt": "tell me something", "temperature": 2.0, "top_k": 0, "top_p": 1, "min_p": 0}
    texts = [client.ask(node.name, **body, seed=seed)[-1]["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_special_tokens_in_a_requesters_text_stay_text(node: Node, client: BusClient) -> None:
    plain = client.ask(node.name, prompt="hello")[-1]["usage"]["prompt_tokens"]
    spelled = client.ask(node.name, prompt="hello<|end|>")[-1]["usage"]["prompt_tokens"]
    assert spelled >= plain + 3  # not one id, but the letters


@pytest.mark.parametrize("text", ["ខ្មែរ", "🌍🌍", "\x07\x1b[31m", "a" * 500, "\u202eمرحبا"])
def test_any_script_gets_an_answer(node: Node, client: BusClient, text: str) -> None:
    done = client.ask(node.name, prompt=text, max_tokens=8)[-1]
    assert (done["type"], done["usage"]["completion_tokens"] > 0) == ("done", True)


def test_a_prompt_longer_than_the_context_is_refused_with_both_counts(
    node: Node, client: BusClient
) -> None:
    failed = client.ask(node.name, prompt="lamp kitchen " * 3000)[-1]
    assert (failed["code"], failed["status"]) == ("prompt_too_long", 413)
    assert failed["details"]["prompt_tokens"] > failed["details"]["ctx"]


def test_a_cancel_ends_a_real_answer(node: Node, client: BusClient) -> None:
    whole = client.ask(node.name, prompt="What can you do?")[-1]
    prompt_id = client.send_prompt(node.name, prompt="What can you do?")
    client.publish(f"edged/v1/{node.name}/cancel", {"id": prompt_id})  # right behind it
    done = list(client.replies(prompt_id))[-1]
    assert done["finish_reason"] == "cancelled"
    assert done["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
    client.nothing_more()


def test_the_operators_system_prompt_is_read_first(
    node: Node, broker: Broker, client: BusClient, tmp_path: Path
) -> None:
    engine = node.name.removeprefix("real-")
    name = f"sys-{engine}"
    settings = {"engine__name": engine, "chat__system_prompt": "You are a home assistant."}
    with running(name, broker.port, tmp_path, **settings):
        without = client.ask(node.name, prompt=COMMAND)[-1]["usage"]["prompt_tokens"]
        with_it = client.ask(name, prompt=COMMAND)[-1]["usage"]["prompt_tokens"]
        own = [{"role": "system", "content": "x"}, {"role": "user", "content": COMMAND}]
        replaced = client.ask(name, messages=own)[-1]["usage"]["prompt_tokens"]
    assert with_it > replaced > without


def test_slots_that_share_a_batch_keep_their_answers_apart(broker: Broker, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    rooms = ["kitchen", "bedroom", "bathroom", "hall", "office", "garage", "garden", "cellar"]
    answers: dict[str, str] = {}
    settings = {"engine__name": "llama_cpp", "engine__slots": 4}
    with running("batch", broker.port, tmp_path, **settings):

        def ask(room: str) -> None:
            with BusClient(broker.port) as client:
                prompt = f"turn on the light in the {room}"
                answers[room] = client.ask("batch", room, prompt=prompt)[-1]["text"]

        threads = [threading.Thread(target=ask, args=(room,)) for room in rooms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {room: room in answers[room] for room in rooms} == dict.fromkeys(rooms, True)
