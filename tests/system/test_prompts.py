"""One prompt's way over a real broker, through a real daemon and its worker."""

import json
import threading
import uuid
from typing import Any

import pytest
from bus_client import BusClient, text_of
from node import Broker, Node, running

LONG = "Eine kurze Grüße. Und noch ein längerer Satz! Wirklich? " * 8


@pytest.mark.parametrize("v5", [True, False], ids=["mqtt5", "mqtt311"])
def test_an_answer_streams_in_order_and_ends_in_the_whole_text(
    broker: Broker, echo: Node, v5: bool
) -> None:
    with BusClient(broker.port, v5=v5) as client:
        replies = client.ask("echo", prompt=LONG)
    assert [reply["seq"] for reply in replies] == list(range(len(replies)))
    assert replies[0]["type"] == "accepted"
    assert {reply["type"] for reply in replies[1:-1]} == {"delta"}
    assert replies[-1]["type"] == "done"
    assert text_of(replies) == replies[-1]["text"] == LONG.strip()
    assert replies[-1]["finish_reason"] == "stop"


def test_a_daemon_that_speaks_3_1_1_answers_too(broker: Broker, folder: Any) -> None:
    settings = {"engine__name": "echo", "mqtt__protocol": "3.1.1"}
    with (
        running("old", broker.port, folder, **settings),
        BusClient(broker.port) as client,
    ):
        assert client.ask("old", prompt="hello")[-1]["text"] == "hello"


def test_the_done_message_carries_usage_timings_and_the_seed(echo: Node, client: BusClient) -> None:
    done = client.ask("echo", prompt="abc", seed=7)[-1]
    assert done["usage"]["completion_tokens"] == 4
    assert 0 <= done["usage"]["cached_tokens"] < done["usage"]["prompt_tokens"]
    assert done["usage"]["prompt_tokens"] > 3
    assert done["timings"]["first_token_ms"] >= done["timings"]["queued_ms"] >= 0
    assert done["timings"]["prefill_tokens_per_s"] > 0
    assert done["seed"] == 7


def test_accepted_names_the_node_and_the_model(echo: Node, client: BusClient) -> None:
    accepted = client.ask("echo", prompt="abc")[0]
    assert (accepted["node"], accepted["model"], accepted["position"]) == ("echo", "echo", 0)


def test_the_named_clients_topic_gets_the_answer_and_the_anonymous_one_does_not(
    echo: Node, client: BusClient
) -> None:
    client.subscribe("edged/v1/echo/completion/anonymous/#")
    assert client.ask("echo", "kitchen-panel", prompt="abc")[-1]["text"] == "abc"
    client.nothing_more()


def test_response_topic_and_correlation_data_are_honoured(echo: Node, client: BusClient) -> None:
    topic = "edged/v1/anything/completion/anonymous/here/please"
    client.subscribe(topic)
    client.publish("edged/v1/echo/prompt", "hi", response_topic=topic, correlation=b"\x00\xff42")
    got = client.wait_for(lambda got: got.json["type"] == "done")
    assert got.topic == topic
    assert got.correlation == b"\x00\xff42"
    assert got.properties["edged-type"] == "done"
    assert got.properties["edged-id"] == b"\x00\xff42".hex()


def test_reply_to_and_correlation_in_the_json_do_the_same(broker: Broker, echo: Node) -> None:
    with BusClient(broker.port, v5=False) as client:
        topic = "edged/v1/echo/completion/me/inbox"
        client.subscribe(topic)
        body = {"prompt": "hi", "reply_to": topic, "correlation": "c-1"}
        client.publish("edged/v1/echo/prompt/me", body)
        assert [reply["correlation"] for reply in client.replies()][-1] == "c-1"


def test_terminals_and_accepted_come_with_qos_1_and_deltas_with_0(
    echo: Node, client: BusClient
) -> None:
    prompt_id = client.send_prompt("echo", prompt=LONG)
    qos = {}
    while "done" not in qos:
        got = client.next()
        qos[got.json["type"]] = got.qos
        assert got.json["id"] == prompt_id
    assert qos == {"accepted": 1, "delta": 0, "done": 1}


def test_sentence_chunks_end_at_sentences(echo: Node, client: BusClient) -> None:
    replies = client.ask("echo", prompt="First one. Second one! Third?", chunk="sentence")
    deltas = [reply["text"] for reply in replies if reply["type"] == "delta"]
    assert deltas == ["First one. ", "Second one! ", "Third?"]


def test_without_stream_only_accepted_and_the_terminal_come(echo: Node, client: BusClient) -> None:
    replies = client.ask("echo", prompt="abc", stream=False)
    assert [reply["type"] for reply in replies] == ["accepted", "done"]
    assert replies[-1]["text"] == "abc"


def test_text_in_done_can_be_left_out(echo: Node, client: BusClient) -> None:
    replies = client.ask("echo", prompt="abc", text_in_done=False)
    assert "text" not in replies[-1]
    assert text_of(replies) == "abc"


def test_plain_text_gets_json_on_the_default_topic(echo: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/echo/completion/anonymous/+")
    client.publish("edged/v1/echo/prompt", "plain words")
    assert list(client.replies())[-1]["text"] == "plain words"


def test_plain_text_gets_plain_text_where_the_operator_wants_it(
    broker: Broker, folder: Any, client: BusClient
) -> None:
    settings = {"engine__name": "echo", "mqtt__text_replies": "true"}
    with running("plain", broker.port, folder, **settings):
        client.subscribe("edged/v1/plain/completion/anonymous/+")
        client.publish("edged/v1/plain/prompt", "Grüße aus dem Keller")
        pieces = []
        while not pieces or pieces[-1]:
            pieces.append(client.next().payload)
        assert b"".join(pieces).decode() == "Grüße aus dem Keller"


def test_an_answer_in_plain_text_that_is_asked_for_again_comes_in_one_piece(
    broker: Broker, folder: Any
) -> None:
    settings = {"engine__name": "echo", "mqtt__text_replies": "true"}
    with running("again", broker.port, folder, **settings), BusClient(broker.port) as client:
        client.subscribe("edged/v1/again/completion/hub/+")
        pieces = []
        for _ in range(2):
            client.publish("edged/v1/again/prompt/hub", "some words", correlation=b"7")
            pieces.append([client.next().payload])
            while pieces[-1][-1]:
                pieces[-1].append(client.next().payload)
        assert len(pieces[0]) > 2
        assert pieces[1] == [b"some words", b""]


def test_eight_clients_at_once_each_get_their_own_whole_answer(broker: Broker, echo: Node) -> None:
    questions = {f"client-{index}": f"question of {index}: {LONG}" for index in range(8)}
    answers: dict[str, list[dict[str, Any]]] = {}
    together = threading.Barrier(len(questions))

    def ask(name: str, question: str) -> None:
        with BusClient(broker.port) as client:
            together.wait()
            answers[name] = client.ask("echo", name, prompt=question)

    threads = [threading.Thread(target=ask, args=item) for item in questions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, question in questions.items():
        assert answers[name][-1]["text"] == question.strip()
        assert text_of(answers[name]) == question.strip()


def test_higher_priority_goes_first(slow: Node, client: BusClient) -> None:
    first = client.send_prompt("slow", prompt="occupied")
    low = client.send_prompt("slow", prompt="a", priority=1)
    high = client.send_prompt("slow", prompt="b", priority=9)
    done: list[str] = []
    while len(done) < 3:
        reply = client.next().json
        if reply["type"] == "done":
            done.append(reply["id"])
    assert done == [first, high, low]


def test_stop_sequences_and_max_tokens_end_an_answer(echo: Node, client: BusClient) -> None:
    stopped = client.ask("echo", prompt="one two three", stop=["two", "never"])[-1]
    assert (stopped["text"], stopped["finish_reason"]) == ("one ", "stop")
    cut = client.ask("echo", prompt="one two three", max_tokens=5)[-1]
    assert (cut["text"], cut["finish_reason"]) == ("one t", "length")


def test_the_same_id_again_while_it_is_answered_is_one_prompt(
    slow: Node, client: BusClient
) -> None:
    body = {"id": uuid.uuid4().hex, "prompt": "0123456789"}
    client.send_prompt("slow", **body)
    assert client.next().json["type"] == "accepted"
    client.publish("edged/v1/slow/prompt", json.dumps(body))
    replies = list(client.replies())
    assert [reply["seq"] for reply in replies if reply["type"] == "accepted"] == [0]
    assert replies[-1]["text"] == "0123456789"
    client.nothing_more()


def test_the_same_id_with_another_body_is_a_conflict(slow: Node, client: BusClient) -> None:
    prompt_id = client.send_prompt("slow", prompt="0123456789")
    client.publish("edged/v1/slow/prompt", {"id": prompt_id, "prompt": "other"})
    failed = client.wait_for(lambda got: got.json["type"] == "failed").json
    assert (failed["code"], failed["status"]) == ("duplicate_conflict", 409)
    assert client.wait_for(lambda got: got.json["type"] == "done").json["text"] == "0123456789"


def test_a_full_queue_says_so_and_when_to_come_back(slow: Node, client: BusClient) -> None:
    ids = [client.send_prompt("slow", prompt=f"number {index}") for index in range(6)]
    ends: dict[str, dict[str, Any]] = {}
    while len(ends) < len(ids):
        reply = client.next().json
        if reply["type"] in ("done", "failed"):
            ends[reply["id"]] = reply
    refused = [end for end in ends.values() if end["type"] == "failed"]
    assert {end["code"] for end in refused} == {"queue_full"}
    assert refused[0]["retryable"] is True
    assert refused[0]["details"] == {"queued": 3, "limit": 3}
    assert len(refused) == 2  # one is answered, three wait


def test_a_deadline_ends_what_runs_and_refuses_what_waits(slow: Node, client: BusClient) -> None:
    running_id = client.send_prompt("slow", prompt="x" * 100, deadline_s=1.0)
    waiting_id = client.send_prompt("slow", prompt="y", deadline_s=0.5)
    ends: dict[str, dict[str, Any]] = {}
    while len(ends) < 2:
        reply = client.next().json
        if reply["type"] in ("done", "failed"):
            ends[reply["id"]] = reply
    assert ends[running_id]["finish_reason"] == "deadline"
    assert 0 < len(ends[running_id]["text"]) < 100
    assert ends[waiting_id]["code"] == "expired"


def test_message_expiry_is_a_deadline(slow: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/slow/completion/anonymous/+")
    client.publish("edged/v1/slow/prompt", "z" * 100, expiry_s=1)
    assert list(client.replies())[-1]["finish_reason"] == "deadline"


def test_another_model_than_the_one_served_is_refused_by_name(
    echo: Node, client: BusClient
) -> None:
    failed = client.ask("echo", prompt="abc", model="phi-9")[-1]
    assert failed["code"] == "unknown_model"
    assert failed["details"] == {"requested": "phi-9", "served": "echo"}
