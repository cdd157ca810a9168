"""A client that asks and keeps account: HOST CA_FILE TOPIC… until something comes on stdin.

It publishes a prompt below each topic every half second and waits for each that was accepted to
come to its end; then it prints what became of them as JSON.
"""

import json
import os
import select
import sys
import time
import uuid
from collections import Counter

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

PAUSE_S = 0.5
PATIENCE_S = 120.0
LEFT_S = 15.0


def main(host: str, ca_file: str, *topics: str) -> None:
    published: list[str] = []
    accepted: set[str] = set()
    ends: dict[str, str] = {}
    nodes: Counter[str] = Counter()

    def heard(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        reply = json.loads(message.payload)
        if reply["type"] == "accepted":
            accepted.add(reply["id"])
            nodes[reply["node"]] += 1
        elif reply["type"] in ("done", "failed"):
            ends[reply["id"]] = reply.get("code", reply["type"])

    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="asking", protocol=MQTTProtocolVersion.MQTTv5
    )
    client.tls_set(ca_file)
    client.username_pw_set("hub", os.environ["ASKING_PASSWORD"])
    client.on_message = heard
    client.connect(host, 8883)
    client.subscribe("edged/v1/+/completion/hub/#", 1)
    client.loop_start()
    ended = False
    while not ended:
        for topic in topics:
            published.append(str(uuid.uuid4()))
            body = json.dumps({"id": published[-1], "prompt": "What can you do?", "max_tokens": 8})
            client.publish(f"{topic}/prompt/hub", body, 1)
        ended = bool(select.select([sys.stdin], [], [], PAUSE_S)[0])
    # What no pool took has no end to wait for.
    began_s = time.monotonic()
    while not set(published) <= ends.keys():
        patience_s = PATIENCE_S if accepted - ends.keys() else LEFT_S
        if time.monotonic() > began_s + patience_s:
            break
        time.sleep(PAUSE_S)
    client.disconnect()
    client.loop_stop()
    found = {
        "published": len(published),
        "accepted": len(accepted),
        "lost": sorted(accepted - ends.keys()),
        "silent": sorted(set(published) - accepted - ends.keys()),
        "ends": Counter(ends.values()),
        "nodes": nodes,
    }
    print(json.dumps(found))  # noqa: T201


main(*sys.argv[1:])
