"""A client without rights gets nothing of anyone else's, and takes nothing away.

hub is who is attacked, kitchen has an account of its own and attacks; the node is attic. The
broker is set up by `edged broker acl`, in both of its formats.
"""

from collections.abc import Iterator

import pytest
from guarded import DENIED, GuardedBroker, Guest, guarded_node
from node import Node

HUBS = ("edged/v1/+/completion/hub/#", "edged/v1/attic/completion/hub/+", "edged/v1/attic/+/hub/#")
EVERYTHING = (
    "#",
    "+/#",
    "edged/#",
    "edged/v1/attic/#",
    "edged/v1/+/completion/#",
    "edged/v1/+/+/#",
)
SHARED = (
    "$share/edged-fleet/edged/v1/pool/fleet/prompt/+",
    "$share/edged-fleet/edged/v1/pool/#",
    "$share/edged-fleet/#",
    "$share/mine/edged/v1/pool/fleet/prompt/+",
    "$share/mine/edged/v1/attic/prompt/+",
    "$share/mine/edged/v1/+/completion/kitchen/#",
)
POOLED = "dynsec"


@pytest.fixture(scope="module", params=["dynsec", "aclfile"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def broker(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedBroker]:
    pools = ["--pools", "fleet"] if kind == POOLED else []
    broker = GuardedBroker(
        tmp_path_factory.mktemp("broker"),
        *("--format", kind, "--nodes", "attic,cellar", "--clients", "hub,kitchen", *pools),
    )
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module", autouse=True)
def attic(
    kind: str, broker: GuardedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """It answers with the question, one byte in 20 ms."""
    pools = {"mqtt__pools": '["fleet"]'} if kind == POOLED else {}
    folder = tmp_path_factory.mktemp("attic")
    with guarded_node(broker, "attic", folder, engine__echo_step_ms=20, **pools) as node:
        yield node


@pytest.fixture
def hub(broker: GuardedBroker) -> Iterator[Guest]:
    with broker.guest("hub") as guest:
        yield guest


@pytest.fixture
def kitchen(broker: GuardedBroker) -> Iterator[Guest]:
    with broker.guest("kitchen") as guest:
        yield guest


def needs_pools(kind: str) -> None:
    if kind != POOLED:
        pytest.skip("an ACL file cannot guard pools, so `edged broker acl` refuses it with them")


def answered(guest: Guest, prompt: str) -> bool:
    """Whether a prompt is still answered to who asked it."""
    return guest.asks(prompt=prompt)[-1]["text"] == prompt


# Accounts


def test_who_has_an_account_is_answered(hub: Guest) -> None:
    assert answered(hub, "good evening")


def test_a_wrong_password_is_not_let_in(broker: GuardedBroker, hub: Guest) -> None:
    with Guest(broker.port, "hub", "guessed") as intruder:
        assert intruder.welcome == DENIED
    assert answered(hub, "still there")


def test_one_users_password_does_not_open_another_account(
    broker: GuardedBroker, hub: Guest
) -> None:
    with Guest(broker.port, "hub", broker.password("kitchen")) as intruder:
        assert intruder.welcome == DENIED
    assert answered(hub, "still there")


@pytest.mark.parametrize("user", [None, "nobody"])
def test_who_has_no_account_is_not_let_in(broker: GuardedBroker, user: str | None) -> None:
    with Guest(broker.port, user, None) as intruder:
        assert intruder.welcome == DENIED


# Topics of others


@pytest.mark.parametrize("topic", ["attic/prompt/hub", "pool/fleet/prompt/hub", "attic/prompt"])
def test_a_prompt_in_anothers_name_is_not_taken(hub: Guest, kitchen: Guest, topic: str) -> None:
    hub.subscribe("edged/v1/+/completion/hub/#")

    assert kitchen.publish(f"edged/v1/{topic}", {"id": "forged", "prompt": "boo"}) == DENIED
    assert hub.arrived() == []


def test_a_prompt_is_not_cancelled_in_its_authors_name(hub: Guest, kitchen: Guest) -> None:
    prompt_id = hub.send_prompt("attic", "hub", prompt="as long as this takes")

    assert kitchen.publish("edged/v1/attic/cancel/hub", {"id": prompt_id}) == DENIED
    assert list(hub.replies(prompt_id))[-1]["text"] == "as long as this takes"


@pytest.mark.parametrize("of", ["status", "card", "state", "rejected", "completion/hub/1"])
def test_nobody_speaks_for_a_node(hub: Guest, kitchen: Guest, of: str) -> None:
    hub.subscribe("edged/v1/+/completion/hub/#")

    assert kitchen.publish(f"edged/v1/attic/{of}", b"offline", retain=True) == DENIED
    assert hub.arrived() == []


@pytest.mark.parametrize("topic", HUBS)
def test_anothers_answers_are_not_read(hub: Guest, kitchen: Guest, topic: str) -> None:
    kitchen.subscribe(topic)

    assert answered(hub, "a secret")
    assert kitchen.arrived() == []


@pytest.mark.parametrize("topic", EVERYTHING)
def test_who_subscribes_to_everything_gets_nothing_of_anothers(
    hub: Guest, kitchen: Guest, topic: str
) -> None:
    kitchen.subscribe(topic)

    assert answered(hub, "a secret")
    # Where the broker has only an ACL file, the subscription stands, and what may be read comes.
    said = ("/status", "/card", "/state")
    assert [got.topic for got in kitchen.arrived() if not got.topic.endswith(said)] == []


@pytest.mark.parametrize("topic", [*HUBS, *EVERYTHING, *SHARED, "edged/v1/attic/prompt/+"])
def test_the_plugin_refuses_the_subscription_itself(kind: str, kitchen: Guest, topic: str) -> None:
    if kind != "dynsec":
        pytest.skip("Mosquitto's ACL file grants every subscription, and delivers nothing to it")

    assert kitchen.subscribe(topic) == DENIED


def test_rejections_of_others_are_not_read(hub: Guest, kitchen: Guest) -> None:
    kitchen.subscribe("edged/v1/attic/rejected")
    hub.publish("edged/v1/attic/prompt/hub", {"prompt": ""})

    assert kitchen.arrived() == []


# Ids of others


def test_a_prompt_is_not_cancelled_by_its_id_from_another_client(
    hub: Guest, kitchen: Guest
) -> None:
    prompt_id = hub.send_prompt("attic", "hub", prompt="as long as this takes")
    kitchen.publish("edged/v1/attic/cancel/kitchen", {"id": prompt_id})

    assert list(hub.replies(prompt_id))[-1]["text"] == "as long as this takes"


def test_the_same_id_from_two_clients_is_two_prompts(hub: Guest, kitchen: Guest) -> None:
    hubs = hub.send_prompt("attic", "hub", id="same", prompt="of the hub")
    kitchens = kitchen.asks(id="same", prompt="of the kitchen")

    assert list(hub.replies(hubs))[-1]["text"] == "of the hub"
    assert kitchens[-1]["text"] == "of the kitchen"


def test_an_answer_that_is_kept_is_not_given_to_another_client(hub: Guest, kitchen: Guest) -> None:
    hub.asks(id="kept", prompt="a secret")

    assert kitchen.asks(id="kept", prompt="tell me")[-1]["text"] == "tell me"
    assert hub.asks(id="kept", prompt="a secret")[-1]["text"] == "a secret"


@pytest.mark.parametrize("prompt_id", ["hub", "..", "../hub", "hub/1", "+", "#", "hub/#", "$SYS"])
def test_an_id_named_like_another_client_stays_ones_own(
    hub: Guest, kitchen: Guest, prompt_id: str
) -> None:
    hub.subscribe("edged/v1/+/completion/hub/#")
    kitchen.subscribe("edged/v1/+/completion/kitchen/#")
    kitchen.publish("edged/v1/attic/prompt/kitchen", {"id": prompt_id, "prompt": "boo"})

    assert hub.arrived() == []
    assert {got.topic.split("/")[4] for got in kitchen.arrived()} <= {"kitchen"}


def test_a_conversation_of_the_same_name_is_another_one(hub: Guest, kitchen: Guest) -> None:
    for prompt in ("my code is 1234", "remember it"):
        hub.asks(session="evening", prompt=prompt)
    begun = kitchen.asks(session="evening", prompt="what is my code?")[-1]
    gone_on = hub.asks(session="evening", prompt="what is my code?")[-1]

    assert (begun["session"]["turns"], gone_on["session"]["turns"]) == (1, 3)
    assert begun["usage"]["prompt_tokens"] < gone_on["usage"]["prompt_tokens"]


def test_a_conversation_is_not_ended_by_another_client(hub: Guest, kitchen: Guest) -> None:
    hub.asks(session="night", prompt="good night")
    kitchen.asks(session="night", session_reset=True, prompt="boo")

    assert hub.asks(session="night", prompt="still here?")[-1]["session"]["turns"] == 2


# Forged reply topics


@pytest.mark.parametrize(
    "topic",
    [
        "edged/v1/attic/completion/hub/1",
        "edged/v1/attic/completion/+/1",
        "edged/v1/attic/completion/#",
        "edged/v1/attic/status",
        "edged/v1/attic/card",
        "edged/v1/cellar/prompt/kitchen",
        "$SYS/broker/uptime",
        "$share/edged-fleet/edged/v1/attic/completion/kitchen/1",
        "$CONTROL/dynamic-security/v1",
        "home/lamp/set",
    ],
)
@pytest.mark.parametrize("where", ["response_topic", "reply_to"])
def test_a_forged_reply_topic_is_refused(
    hub: Guest, kitchen: Guest, topic: str, where: str
) -> None:
    if where == "response_topic" and set(topic) & set("+#"):
        pytest.skip("who sends wildcards as a Response Topic is cut off by the broker")
    for mine in ("completion/hub/#", "status", "card"):
        hub.subscribe(f"edged/v1/+/{mine}")
    hub.arrived()  # what was retained
    kitchen.subscribe("edged/v1/+/completion/kitchen/#")
    body = {"id": "forged", "prompt": "boo"} | ({where: topic} if where == "reply_to" else {})
    options = {where: topic} if where == "response_topic" else {}
    kitchen.publish("edged/v1/attic/prompt/kitchen", body, **options)
    refused = kitchen.wait_for(lambda got: got.json["type"] == "failed")

    assert refused.json["code"] == "reply_topic_forbidden"
    assert refused.topic == "edged/v1/attic/completion/kitchen/forged"
    assert hub.arrived() == []


@pytest.mark.parametrize("level", ["cellar", "pool", "nobody"])
def test_a_reply_topic_below_another_node_is_ones_own_and_cuts_nobody_off(
    hub: Guest, kitchen: Guest, level: str
) -> None:
    """Mosquitto ends the connection of who publishes where it may not: here, the node's."""
    topic = f"edged/v1/{level}/completion/kitchen/1"
    kitchen.subscribe(topic)
    kitchen.publish("edged/v1/attic/prompt/kitchen", {"prompt": "boo"}, response_topic=topic)

    assert answered(hub, "still there")
    assert kitchen.wait_for(lambda got: got.json["type"] == "done").topic == topic


def test_dots_in_a_reply_topic_lead_nowhere_else(hub: Guest, kitchen: Guest) -> None:
    topic = "edged/v1/attic/completion/kitchen/../hub/1"
    hub.subscribe("edged/v1/+/completion/hub/#")
    kitchen.subscribe("edged/v1/+/completion/kitchen/#")
    kitchen.publish("edged/v1/attic/prompt/kitchen", {"prompt": "boo"}, response_topic=topic)

    assert kitchen.wait_for(lambda got: got.json["type"] == "done").topic == topic
    assert hub.arrived() == []


# Pools


def test_a_foreign_member_of_a_pool_swallows_nothing(kind: str, hub: Guest, kitchen: Guest) -> None:
    needs_pools(kind)
    for topic in SHARED:
        kitchen.subscribe(topic)
    hub.subscribe("edged/v1/+/completion/hub/#")
    for number in range(6):
        hub.publish("edged/v1/pool/fleet/prompt/hub", {"id": f"pool-{number}", "prompt": "hi"})
    done = set()
    while len(done) < 6:
        done.add(hub.wait_for(lambda got: got.json["type"] == "done").json["id"])

    assert done == {f"pool-{number}" for number in range(6)}
    assert kitchen.arrived() == []


def test_a_node_shares_no_pool_that_it_is_not_in(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs_pools(kind)
    broker = GuardedBroker(
        tmp_path_factory.mktemp("two"),
        *("--nodes", "attic,cellar", "--clients", "hub", "--pools", "fleet=attic,spare=cellar"),
    )
    broker.start()
    try:
        with broker.guest("cellar") as cellar:
            foreign = cellar.subscribe("$share/edged-fleet/edged/v1/pool/fleet/prompt/+")
            own = cellar.subscribe("$share/edged-spare/edged/v1/pool/spare/prompt/+")
    finally:
        broker.stop()

    assert (foreign, own) == (DENIED, "Granted QoS 1")


# Nodes among each other


@pytest.mark.parametrize("topic", ["status", "card", "state", "rejected"])
def test_a_node_does_not_speak_for_another(broker: GuardedBroker, hub: Guest, topic: str) -> None:
    hub.subscribe("edged/v1/+/completion/hub/#")
    with broker.guest("cellar") as cellar:
        assert cellar.publish(f"edged/v1/attic/{topic}", b"{}", retain=True) == DENIED
    assert hub.arrived() == []


def test_a_node_does_not_read_anothers_prompts(broker: GuardedBroker, hub: Guest) -> None:
    with broker.guest("cellar") as cellar:
        for topic in ("edged/v1/attic/prompt/+", "edged/v1/+/prompt/+", "#"):
            cellar.subscribe(topic)
        assert answered(hub, "a secret")
        cellar.subscribe("edged/v1/cellar/prompt/+")
        hub.publish("edged/v1/cellar/prompt/hub", {"prompt": "for the cellar"})
        got = cellar.wait_for(lambda got: "/prompt/" in got.topic)

    assert got.topic == "edged/v1/cellar/prompt/hub"


# Sessions of the broker


def test_who_takes_a_clients_mqtt_session_gets_nothing_of_it(
    broker: GuardedBroker, kitchen: Guest
) -> None:
    """The broker gives a client id to whoever asks; the rights stay with the user."""
    with broker.guest("hub", client_id="hubs", keeps_session=True) as hub:
        hub.subscribe("edged/v1/+/completion/hub/#")
        with (
            broker.guest("kitchen", client_id="hubs", keeps_session=True) as thief,
            broker.guest("hub") as elsewhere,
        ):
            assert answered(elsewhere, "a secret")
            assert thief.arrived() == []


def test_nobody_takes_a_nodes_mqtt_session_by_its_name(
    broker: GuardedBroker, kitchen: Guest, hub: Guest
) -> None:
    """Its client id cannot be guessed: the broker would give its prompts' queue to whoever does."""
    with broker.guest("kitchen", client_id="edged-attic", keeps_session=True) as thief:
        assert answered(hub, "a secret")
        assert thief.arrived() == []
