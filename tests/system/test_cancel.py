"""A requester changes its mind."""

from bus_client import BusClient
from node import Node


def test_a_running_prompt_stops_within_a_step_and_ends_in_one_terminal_message(
    slow: Node, client: BusClient
) -> None:
    prompt_id = client.send_prompt("slow", prompt="x" * 200)
    seen = client.wait_for(lambda got: got.json["type"] == "delta").json["n"]
    client.publish("edged/v1/slow/cancel", {"id": prompt_id})
    replies = list(client.replies(prompt_id))
    done = replies[-1]
    assert (done["type"], done["finish_reason"]) == ("done", "cancelled")
    # One token may have been on its way, and one step under way, when the cancel arrived.
    assert seen <= done["usage"]["completion_tokens"] <= seen + 2
    assert done["text"] == "x" * done["usage"]["completion_tokens"]
    client.nothing_more()


def test_a_waiting_prompt_never_starts(slow: Node, client: BusClient) -> None:
    client.send_prompt("slow", prompt="occupied")
    waiting = client.send_prompt("slow", prompt="never")
    client.publish("edged/v1/slow/cancel", {"id": waiting})
    failed = client.wait_for(lambda got: got.json["type"] == "failed").json
    assert (failed["id"], failed["code"], failed["status"]) == (waiting, "cancelled", 499)


def test_a_client_cannot_cancel_anothers_prompt(slow: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/slow/rejected")
    prompt_id = client.send_prompt("slow", "alice", prompt="0123456789")
    client.publish("edged/v1/slow/cancel/mallory", {"id": prompt_id})
    rejected = client.wait_for(lambda got: got.topic.endswith("/rejected")).json
    assert rejected["client"] == "mallory"
    assert list(client.replies(prompt_id))[-1]["text"] == "0123456789"


def test_a_malformed_cancel_lands_on_rejected(slow: Node, client: BusClient) -> None:
    client.subscribe("edged/v1/slow/rejected")
    client.publish("edged/v1/slow/cancel", b"\xff not json")
    rejected = client.next().json
    assert rejected["topic"] == "edged/v1/slow/cancel"
    assert rejected["length"] == 10
