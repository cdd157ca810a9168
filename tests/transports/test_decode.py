"""Payloads become prompts, or failures that name what is wrong; nothing else comes out."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edged.engine.frames import Submit, encode
from edged.engine.json_schema import grammar_of
from edged.errors import InvalidRequest, PromptFailure
from edged.messages import ChatMessage, Failed, Prompt, Reply
from edged.settings import ChatSettings, MqttSettings, SamplingSettings, Settings
from edged.transports.body import (
    MAX_CORRELATION,
    MAX_ID_CHARACTERS,
    MAX_STOPS,
    SEED_LIMIT,
    parse_json_object,
)
from edged.transports.decode import Incoming, Request, decode_prompt
from edged.transports.encode import encode_plain, encode_reply, user_properties
from edged.transports.topics import Topics, is_clean

TOPICS = Topics("edged/v1", "attic")
SETTINGS = Settings(node="attic")
CLIENT = "kitchen"
FIELDS = (
    "id",
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "seed",
    "stop",
    "response_format",
    "priority",
    "deadline_s",
    "stream",
    "chunk",
    "text_in_done",
    "model",
    "reply_to",
    "correlation",
)


def request(
    payload: bytes | dict[str, Any], operator: Settings = SETTINGS, **properties: Any
) -> Request:
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    incoming = Incoming(TOPICS.prompt(CLIENT), payload, **properties)
    return decode_prompt(incoming, CLIENT, TOPICS, operator)


def prompt(payload: bytes | dict[str, Any], operator: Settings = SETTINGS, **more: Any) -> Prompt:
    outcome = request(payload, operator, **more).outcome
    assert isinstance(outcome, Prompt), outcome
    return outcome


def failure(
    payload: bytes | dict[str, Any], operator: Settings = SETTINGS, **more: Any
) -> PromptFailure:
    outcome = request(payload, operator, **more).outcome
    assert isinstance(outcome, PromptFailure), outcome
    return outcome


def check_failure_can_be_sent(got: Request, refusal: PromptFailure) -> None:
    reply = Reply(got.address.id, 0, 0, Failed.of(refusal))

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    sent = json.loads(
        encode_reply(reply, got.address.correlation_text).decode("utf-8"), parse_constant=refuse
    )
    assert sent["error"] == refusal.error
    assert sent["details"] == refusal.details
    encode_plain(reply)
    for _, value in user_properties(reply):
        assert is_clean(value)


# Plain text


def test_plain_text_is_what_the_user_says() -> None:
    assert prompt("Grüß dich".encode()).messages == (ChatMessage("user", "Grüß dich"),)


def test_plain_text_keeps_its_white_space() -> None:
    assert prompt(b" hi\n").messages[0].content == " hi\n"


def test_plain_text_is_known_as_such() -> None:
    assert [request(payload).address.plain for payload in (b"hi", b' {"prompt": "hi"}')] == [
        True,
        False,
    ]


@pytest.mark.parametrize("payload", [b"", b" \n\t", "\u3000".encode()])
def test_an_empty_prompt_is_refused(payload: bytes) -> None:
    assert (failure(payload).code, failure(payload).details) == (
        "invalid_request",
        {"field": "prompt"},
    )


def test_plain_text_that_is_no_utf8_is_refused_with_the_place() -> None:
    assert "byte 2" in failure(b"ab\xff").error


# JSON


def test_json_is_recognised_behind_blanks() -> None:
    assert prompt(b'\n\t {"prompt": "hi"}').messages[0].content == "hi"


def test_messages_become_the_conversation() -> None:
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "light on"},
    ]

    assert prompt({"messages": said}).messages == tuple(ChatMessage(**one) for one in said)


def test_every_field_arrives() -> None:
    got = prompt(
        {
            "id": "a-1",
            "prompt": "hi",
            "max_tokens": 9,
            "temperature": 0.5,
            "top_k": 3,
            "top_p": 0.8,
            "min_p": 0.1,
            "repeat_penalty": 1.2,
            "seed": 42,
            "stop": ["\n", "END"],
            "priority": 9,
            "deadline_s": 2.5,
            "stream": False,
            "chunk": "sentence",
            "text_in_done": False,
            "model": "phi",
        }
    )

    assert (
        got.id,
        got.sampling.max_tokens,
        got.sampling.temperature,
        got.sampling.top_k,
        got.sampling.top_p,
        got.sampling.min_p,
        got.sampling.repeat_penalty,
        got.sampling.seed,
        got.sampling.stop,
        got.priority,
        got.deadline_s,
        got.stream,
        got.chunk,
        got.text_in_done,
        got.model,
    ) == (
        *("a-1", 9, 0.5, 3, 0.8, 0.1, 1.2, 42, ("\n", "END")),
        *(9, 2.5, False, "sentence", False, "phi"),
    )


def test_one_stop_sequence_may_stand_alone() -> None:
    assert prompt({"prompt": "hi", "stop": "END"}).sampling.stop == ("END",)


def test_a_whole_number_is_taken_for_a_fractional_field() -> None:
    assert prompt({"prompt": "hi", "temperature": 1}).sampling.temperature == 1.0


def test_null_means_not_given() -> None:
    assert prompt({"prompt": "hi", "max_tokens": None}).sampling.max_tokens == 512


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b'{"prompt": ', "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": "hi", "temperature": NaN}', "NaN"),
        (b'{"prompt": "hi", "temperature": Infinity}', "Infinity"),
        (b"{" * 100_000, "JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"messages":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested too deeply"),
        (b'{"prompt": "hi", "seed": 1' + b"0" * 5000 + b"}", "not JSON"),
    ],
    ids=["cut", "no UTF-8", "NaN", "Infinity", "braces", "objects", "lists", "long number"],
)
def test_what_is_no_json_is_refused(payload: bytes, says: str) -> None:
    assert says in failure(payload).error


@pytest.mark.parametrize("payload", [b"[]", b"1", b'"{}"', b"null"])
def test_json_that_is_no_object_is_refused_where_an_object_is_needed(payload: bytes) -> None:
    with pytest.raises(PromptFailure, match="no object"):
        parse_json_object(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 1),
        ("id", ""),
        ("id", "x" * (MAX_ID_CHARACTERS + 1)),
        ("id", "a\0b"),
        ("prompt", 1),
        ("prompt", " "),
        ("messages", []),
        ("messages", "hi"),
        ("messages", [{"role": "tool", "content": "x"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": "x", "name": "y"}]),
        ("messages", [{"role": "assistant", "content": "x"}]),
        ("max_tokens", 0),
        ("max_tokens", "9"),
        ("max_tokens", 9.5),
        ("max_tokens", True),
        ("max_tokens", 10**9),
        ("max_tokens", 10**400),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", 10**400),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", 1),
        ("repeat_penalty", 0),
        ("repeat_penalty", 3),
        ("seed", -1),
        ("seed", SEED_LIMIT),
        ("stop", ""),
        ("stop", [""]),
        ("stop", ["x"] * (MAX_STOPS + 1)),
        ("stop", ["x" * 257]),
        ("stop", [1]),
        ("priority", 10),
        ("priority", -1),
        ("deadline_s", 0),
        ("deadline_s", 1e8),
        ("stream", "yes"),
        ("chunk", "word"),
        ("text_in_done", 1),
        ("model", "x" * 129),
        ("correlation", "x" * (MAX_CORRELATION + 1)),
        ("correlation", 1),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_field_out_of_bounds_is_refused_by_name(field: str, value: Any) -> None:
    body = {field: value} if field == "messages" else {"prompt": "hi", field: value}
    refusal = failure(body)

    assert (refusal.code, refusal.details.get("field")) == ("invalid_request", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "half \ud83d"),
        ("messages", [{"role": "user", "content": "half \ud83d"}]),
        ("messages", [{"role": "user", "content": "x", "half \ud83d": 1}]),
        ("stop", "half \ud83d"),
        ("stop", ["half \ud83d"]),
        ("model", "half \ud83d"),
        ("correlation", "half \ud83d"),
        ("id", "half \ud83d"),
    ],
    ids=ascii,
)
def test_half_a_code_point_is_refused_wherever_it_stands(field: str, value: Any) -> None:
    got = request(({} if field == "messages" else {"prompt": "hi"}) | {field: value})

    assert isinstance(got.outcome, InvalidRequest)
    check_failure_can_be_sent(got, got.outcome)


def test_an_unknown_field_of_half_a_code_point_is_refused() -> None:
    got = request({"prompt": "hi", "half \ud83d": 1})

    assert isinstance(got.outcome, PromptFailure)
    check_failure_can_be_sent(got, got.outcome)


def test_an_error_names_the_field_in_its_sentence() -> None:
    assert failure({"prompt": "hi", "top_p": 7}).error.startswith("top_p: ")


def test_an_error_does_not_repeat_the_value() -> None:
    assert "secret" not in failure({"prompt": "hi", "chunk": "secret"}).error


def test_an_error_says_where_in_the_conversation_it_is() -> None:
    said = [{"role": "user", "content": "x"}, {"role": "user", "content": 1}]

    assert failure({"messages": said}).error.startswith("messages.1.content: ")


def test_an_unknown_field_is_refused_with_what_was_probably_meant() -> None:
    refusal = failure({"prompt": "hi", "temprature": 1})

    assert (refusal.details, "did you mean temperature?" in refusal.error) == (
        {"field": "temprature"},
        True,
    )


ANSWER = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}


@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_schema", "schema": ANSWER}]
)
def test_a_form_of_the_answer_becomes_its_grammar(form: dict[str, Any]) -> None:
    assert prompt({"prompt": "hi", "response_format": form}).grammar == grammar_of(form)


def test_an_answer_of_any_form_has_no_grammar() -> None:
    assert prompt({"prompt": "hi"}).grammar is None


def test_a_keyword_that_is_not_kept_is_refused_by_name() -> None:
    schema = {"properties": {"level": {"type": "integer", "minimum": 1}}}
    refusal = failure(
        {"prompt": "hi", "response_format": {"type": "json_schema", "schema": schema}}
    )

    assert isinstance(refusal, InvalidRequest)
    assert refusal.details == {
        "field": "response_format",
        "at": "#/properties/level",
        "keyword": "minimum",
    }


@pytest.mark.parametrize("form", ["json_object", [], 3, True])
def test_a_form_that_is_no_object_is_refused(form: object) -> None:
    assert failure({"prompt": "hi", "response_format": form}).details == {
        "field": "response_format"
    }


@pytest.mark.parametrize("stop", ["x", ["x", "y"]])
def test_a_stop_sequence_would_cut_an_answer_that_has_a_form(stop: object) -> None:
    form = {"type": "json_object"}

    assert failure({"prompt": "hi", "stop": stop, "response_format": form}).details == {
        "field": "stop"
    }


def test_a_schema_nested_beyond_the_parser_is_refused() -> None:
    schema = b'{"items":' * 10_000 + b"true" + b"}" * 10_000
    form = b'{"type":"json_schema","schema":' + schema + b"}"

    assert "nested" in failure(b'{"prompt":"hi","response_format":' + form + b"}").error


def test_a_prompt_of_a_conversation_says_which() -> None:
    asked = prompt({"prompt": "hi", "session": "tea", "session_reset": True})

    assert (asked.session, asked.session_reset) == ("tea", True)


def test_a_conversation_cannot_begin_anew_without_a_name() -> None:
    assert failure({"prompt": "hi", "session_reset": True}).details == {"field": "session_reset"}


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}, {"id": "7"}],
)
def test_exactly_one_of_prompt_and_messages_is_needed(body: dict[str, Any]) -> None:
    assert "exactly one of prompt and messages" in failure(body).error


def test_a_payload_above_the_limit_is_refused_with_both_sizes() -> None:
    operator = Settings(node="attic", mqtt=MqttSettings(max_payload_bytes=1024))

    assert failure(b"x" * 1025, operator).details == {"bytes": 1025, "limit": 1024}


def test_a_payload_of_the_limit_is_taken() -> None:
    operator = Settings(node="attic", mqtt=MqttSettings(max_payload_bytes=1024))

    assert len(prompt(b"x" * 1024, operator).messages[0].content) == 1024


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "hi", "x" * 100_000: 1},
        {"messages": [{"role": "user", "content": "hi", "x" * 100_000: 1}]},
        {"prompt": "hi", "reply_to": "x" * 100_000},
        {"prompt": "hi", "max_tokens": 10**300},
    ],
    ids=["field", "nested field", "topic", "number"],
)
def test_an_error_stays_short_whatever_was_sent(body: dict[str, Any]) -> None:
    assert len(failure(body).error) < 500


# The operator's part


def test_what_a_prompt_does_not_say_is_the_operators_default() -> None:
    wanted = SamplingSettings(
        max_tokens=7, temperature=0.3, top_k=5, top_p=0.7, min_p=0.2, repeat_penalty=1.3
    )
    got = prompt(b"hi", Settings(node="attic", sampling=wanted)).sampling

    assert (
        *(got.max_tokens, got.temperature, got.top_k, got.top_p, got.min_p, got.repeat_penalty),
    ) == (7, 0.3, 5, 0.7, 0.2, 1.3)


def test_zero_is_no_missing_value() -> None:
    wanted = SamplingSettings(temperature=0.3, top_k=5, min_p=0.2)
    body = {"prompt": "hi", "temperature": 0, "top_k": 0, "min_p": 0, "seed": 0}
    got = prompt(body, Settings(node="attic", sampling=wanted)).sampling

    assert (got.temperature, got.top_k, got.min_p, got.seed) == (0, 0, 0, 0)


@pytest.mark.parametrize(("field", "above"), [("max_tokens", 11), ("temperature", 1.1)])
def test_above_the_operators_bound_is_refused_with_the_bound(field: str, above: float) -> None:
    bounds = SamplingSettings(max_tokens=5, max_tokens_limit=10, temperature_limit=1.0)
    refusal = failure({"prompt": "hi", field: above}, Settings(node="attic", sampling=bounds))

    assert refusal.details == {
        "field": field,
        "value": above,
        "limit": {"max_tokens": 10, "temperature": 1.0}[field],
    }


def test_the_operators_system_prompt_comes_first() -> None:
    operator = Settings(node="attic", chat=ChatSettings(system_prompt="be brief"))

    assert prompt(b"hi", operator).messages == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "hi"),
    )


def test_the_operators_template_is_put_around_the_last_message() -> None:
    operator = Settings(node="attic", chat=ChatSettings(user_template="<{prompt}> at {time}"))
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "{time} {prompt}"},
    ]

    one, two, three = (each.content for each in prompt({"messages": said}, operator).messages)
    assert (one, two) == ("one", "two")
    assert re.fullmatch(r"<\{time\} \{prompt\}> at \d\d:\d\d", three)


@pytest.mark.parametrize("wrong", ["no place", "{prompt} twice {prompt}", "{prompt} {weather}"])
def test_a_template_without_a_place_or_with_an_unknown_one_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="prompt"):
        ChatSettings(user_template=wrong)


def test_a_system_message_of_the_prompts_own_replaces_the_operators() -> None:
    operator = Settings(node="attic", chat=ChatSettings(system_prompt="be brief"))
    said = [{"role": "system", "content": "be long"}, {"role": "user", "content": "hi"}]

    assert [one.content for one in prompt({"messages": said}, operator).messages] == [
        "be long",
        "hi",
    ]


def test_a_prompt_without_a_seed_gets_one_of_its_own() -> None:
    assert prompt(b"hi").sampling.seed != prompt(b"hi").sampling.seed


def test_a_seed_that_was_made_can_be_asked_for_again() -> None:
    seed = prompt(b"hi").sampling.seed

    assert prompt({"prompt": "hi", "seed": seed}).sampling.seed == seed


# Identity


def test_an_id_given_is_the_prompts() -> None:
    assert prompt({"id": "7", "prompt": "hi"}).id == "7"


def test_the_correlation_data_is_the_id_where_none_is_given() -> None:
    assert prompt(b"hi", correlation=b"order-7").id == "order-7"


def test_an_id_given_comes_before_the_correlation_data() -> None:
    assert prompt({"id": "7", "prompt": "hi"}, correlation=b"order-7").id == "7"


@pytest.mark.parametrize("correlation", [b"\xff\0", b"a/b", b"a\n"])
def test_correlation_data_that_is_no_topic_level_becomes_a_hexadecimal_id(
    correlation: bytes,
) -> None:
    assert prompt(b"hi", correlation=correlation).id == correlation.hex()


def test_a_prompt_without_any_id_gets_one_of_its_own() -> None:
    assert prompt(b"hi").id != prompt(b"hi").id


def test_the_same_payload_has_the_same_digest() -> None:
    assert prompt(b"hi").digest == prompt(b"hi").digest


def test_another_payload_has_another_digest() -> None:
    assert prompt(b"hi").digest != prompt(b"ho").digest


def test_the_client_is_the_one_of_the_topic() -> None:
    assert prompt(b"hi").client == CLIENT


# Deadlines


def test_the_message_expiry_is_the_deadline_where_none_is_given() -> None:
    assert prompt(b"hi", expiry_s=30).deadline_s == 30


def test_a_deadline_given_comes_before_the_message_expiry() -> None:
    assert prompt({"prompt": "hi", "deadline_s": 2}, expiry_s=30).deadline_s == 2


# Where the answer goes


def test_an_answer_goes_to_the_completion_topic_of_its_client_and_id() -> None:
    address = request({"id": "7", "prompt": "hi"}).address

    assert (address.topic, address.asked) == ("edged/v1/attic/completion/kitchen/7", True)


def test_an_id_that_was_made_is_not_one_that_was_asked_for() -> None:
    assert not request(b"hi").address.asked


def test_the_response_topic_is_honoured() -> None:
    topic = "edged/v1/attic/completion/kitchen/inbox"
    address = request(b"hi", response_topic=topic).address

    assert (address.topic, address.asked) == (topic, True)


def test_reply_to_is_honoured() -> None:
    topic = "edged/v1/attic/completion/kitchen/inbox"

    assert request({"prompt": "hi", "reply_to": topic}).address.topic == topic


def test_the_response_topic_comes_before_reply_to() -> None:
    topic = "edged/v1/attic/completion/kitchen/inbox"
    body = {"prompt": "hi", "reply_to": f"{topic}2"}

    assert request(body, response_topic=topic).address.topic == topic


@pytest.mark.parametrize("field", ["response_topic", "reply_to"])
def test_a_forbidden_reply_topic_is_refused_on_the_clients_own(field: str) -> None:
    topic = "edged/v1/attic/completion/bedroom/7"
    given_as = {"prompt": "hi", "id": "7"} | ({"reply_to": topic} if field == "reply_to" else {})
    properties = {"response_topic": topic} if field == "response_topic" else {}
    got = request(given_as, **properties)

    assert isinstance(got.outcome, PromptFailure)
    assert (got.outcome.code, got.address.topic) == (
        "reply_topic_forbidden",
        "edged/v1/attic/completion/kitchen/7",
    )


@pytest.mark.parametrize("wanted", [1, []])
def test_a_reply_to_that_is_no_text_is_an_invalid_request(wanted: Any) -> None:
    refusal = failure({"prompt": "hi", "reply_to": wanted})

    assert (refusal.code, refusal.details) == ("invalid_request", {"field": "reply_to"})


def test_an_id_that_cannot_be_a_topic_level_is_refused_where_it_would_have_to_be_one() -> None:
    got = request({"prompt": "hi", "id": "a/b"})

    assert isinstance(got.outcome, PromptFailure)
    assert (got.outcome.details, got.address.topic) == ({"field": "id"}, None)


def test_an_id_that_cannot_be_a_topic_level_is_taken_where_it_need_not_be_one() -> None:
    topic = "edged/v1/attic/completion/kitchen/inbox"

    assert prompt({"prompt": "hi", "id": "a/b", "reply_to": topic}).id == "a/b"


def test_correlation_data_is_echoed() -> None:
    assert request(b"hi", correlation=b"\xff").address.correlation == b"\xff"


def test_correlation_data_that_is_too_long_is_refused_and_not_echoed() -> None:
    got = request(b"hi", correlation=b"x" * (MAX_CORRELATION + 1))

    assert isinstance(got.outcome, PromptFailure)
    assert (got.outcome.details["limit"], got.address.correlation) == (MAX_CORRELATION, None)


def test_a_correlation_in_the_json_is_echoed() -> None:
    assert request({"prompt": "hi", "correlation": "x"}).address.correlation_text == "x"


def test_a_prompt_that_is_refused_is_answered_where_it_asked() -> None:
    topic = "edged/v1/attic/completion/kitchen/inbox"
    got = request({"prompt": "", "id": "7", "reply_to": topic, "correlation": "x"})

    assert (got.address.topic, got.address.id, got.address.correlation_text) == (topic, "7", "x")


# Whatever comes

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.integers(-(10**420), 10**420),
        st.floats(),
        st.text("ab é\ud800\0", min_size=1, max_size=3),
        st.text(st.characters(), max_size=6),
        st.sampled_from(
            [
                "\ud800",
                "user",
                "token",
                "edged/v1/attic/completion/kitchen/x",
                "edged/v1/+/completion/kitchen/x",
                "x" * 300,
                10**400,
                "1e999",
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["role", "content", "\ud800"]), st.text(max_size=3)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
names = st.one_of(
    st.sampled_from([*FIELDS, "\ud800", "Prompt"]), st.text(st.characters(), max_size=4)
)
spoiled_bodies = st.tuples(
    st.sampled_from(
        [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}, {"id": "7"}, {}]
    ),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2),
).map(lambda both: {**both[0], **both[1]})
payloads = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda data: b"{" + data),
    spoiled_bodies.map(lambda body: json.dumps(body).encode()),
    st.dictionaries(names, json_values, max_size=3).map(lambda body: json.dumps(body).encode()),
    spoiled_bodies.map(lambda body: json.dumps(body, ensure_ascii=False).encode(errors="replace")),
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "response_topic": st.one_of(
            st.text(max_size=6), st.just("edged/v1/attic/completion/kitchen/x")
        ),
        "correlation": st.binary(max_size=10),
        "expiry_s": st.integers(0, 2**32 - 1),
    },
)


@given(payloads, properties)
@settings(max_examples=200)
def test_whatever_comes_is_a_prompt_or_a_failure_that_can_be_sent(
    payload: bytes, given_properties: dict[str, Any]
) -> None:
    got = request(payload, **given_properties)

    if isinstance(got.outcome, PromptFailure):
        check_failure_can_be_sent(got, got.outcome)
    else:
        assert isinstance(got.outcome, Prompt)


@given(payloads, properties)
@settings(max_examples=100)
def test_whatever_comes_is_answered_below_the_clients_own_topics_or_nowhere(
    payload: bytes, given_properties: dict[str, Any]
) -> None:
    topic = request(payload, **given_properties).address.topic

    assert topic is None or (
        topic.startswith("edged/v1/attic/completion/kitchen/")
        and is_clean(topic)
        and set("+#").isdisjoint(topic)
    )


@given(payloads, properties)
@settings(max_examples=100)
def test_whatever_becomes_a_prompt_is_within_the_operators_bounds(
    payload: bytes, given_properties: dict[str, Any]
) -> None:
    outcome = request(payload, **given_properties).outcome
    if isinstance(outcome, PromptFailure):
        return
    assert 1 <= outcome.sampling.max_tokens <= SETTINGS.sampling.max_tokens_limit
    assert 0 <= outcome.sampling.temperature <= SETTINGS.sampling.temperature_limit
    assert 0 <= outcome.sampling.seed < SEED_LIMIT
    assert outcome.messages[-1].role == "user"


@given(
    st.sampled_from(["prompt", "stop", "model", "id", "correlation", "messages"]),
    st.text("ab é\ud800\udc00\0", min_size=1, max_size=3),
)
@settings(max_examples=100)
def test_whatever_text_comes_in_a_prompt_can_be_handed_to_the_worker(field: str, text: str) -> None:
    value = [{"role": "user", "content": text}] if field == "messages" else text
    outcome = request(({} if field == "messages" else {"prompt": "hi"}) | {field: value}).outcome

    if isinstance(outcome, Prompt):
        encode(Submit(1, outcome.messages, outcome.sampling))


@given(st.binary(max_size=60))
@settings(max_examples=100)
def test_any_bytes_are_an_object_or_an_invalid_request(payload: bytes) -> None:
    try:
        value = parse_json_object(payload)
    except InvalidRequest as refusal:
        refusal.error.encode("utf-8")
    else:
        assert isinstance(value, dict)
