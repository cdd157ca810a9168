"""The training data of the bundled model: held-out sentences stay out, answers can be read back."""

from __future__ import annotations

import random

import pytest

from tools.tiny_model import dataset
from tools.tiny_model.conversations import conversation
from tools.tiny_model.devices import DEVICES
from tools.tiny_model.frames import HELD_OUT, TRAINING
from tools.tiny_model.off_topic import off_topic
from tools.tiny_model.parse import parse_answer, says_what_it_is
from tools.tiny_model.requests import fill, pick_request, write_as_people_do
from tools.tiny_model.small_talk import ABOUT

SAMPLES = 6000


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    samples = dataset.conversations(SAMPLES)
    return [user for sample in samples for user, _ in sample.turns]


def test_no_held_out_sentence_occurs_in_training(prompts: list[str]) -> None:
    assert not [prompt for prompt in prompts if dataset.uses_held_out_sentence(prompt)]


def test_no_training_prompt_is_a_held_out_one_in_other_words_for_its_slots(
    prompts: list[str],
) -> None:
    held_out = {dataset.skeleton(case["prompt"]) for case in dataset.read_cases(dataset.COMMANDS)}
    assert not held_out & {dataset.skeleton(prompt) for prompt in prompts}


def test_no_off_topic_case_is_in_training(prompts: list[str]) -> None:
    cases = {dataset.skeleton(case["prompt"]) for case in dataset.read_cases(dataset.OFF_TOPIC)}
    assert not cases & {dataset.skeleton(prompt) for prompt in prompts}


def test_training_and_held_out_frames_share_none() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert not [frame for frame in TRAINING if dataset.uses_held_out_sentence(frame)]


def test_skeleton_ignores_devices_rooms_numbers_and_courtesies() -> None:
    one = dataset.skeleton("Please set the lamp in the kitchen to 40 percent!")
    assert one == dataset.skeleton("set the ceiling fan in the living room to 5 percent, thanks")


@pytest.mark.parametrize("frame", HELD_OUT)
def test_a_held_out_frame_is_recognised_once_filled(frame: str) -> None:
    rng = random.Random(frame)
    assert dataset.uses_held_out_sentence(fill(frame, pick_request(rng), rng))


def test_committed_commands_are_what_the_generator_writes() -> None:
    cases = dataset.read_cases(dataset.COMMANDS)
    assert cases == dataset.held_out_commands()
    assert len(cases) >= 200
    assert len({case["template"] for case in cases}) == len(HELD_OUT)


def test_there_are_fifty_different_off_topic_cases() -> None:
    assert len({case["prompt"] for case in dataset.read_cases(dataset.OFF_TOPIC)}) == 50


def test_the_training_set_is_the_same_every_time() -> None:
    assert list(dataset.conversations(200)) == list(dataset.conversations(200))
    assert list(dataset.conversations(200)) != list(dataset.conversations(200, seed=1))


@pytest.mark.parametrize("seed", range(200))
def test_an_answer_reads_back_as_its_request(seed: int) -> None:
    rng = random.Random(seed)
    request = pick_request(rng)
    prompt = write_as_people_do(fill(rng.choice(TRAINING), request, rng), rng)
    action = f"set to {request.value}" if request.value else request.action
    expected = {"device": request.device.name, "room": request.room, "action": action}
    assert parse_answer(request.answer(prompt)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Okay, I am turning off the lamp.",
        "Okay, I am turning off the lamp in the kitchen",
        "Okay, I am turning off the spaceship in the kitchen.",
        "I am turning off the lamp in the kitchen.",
        "Okay, I am setting the lamp in the kitchen to bright.",
        "Okay, I am turning off the lamp and the fan in the kitchen.",
    ],
)
def test_the_parser_is_strict(answer: str) -> None:
    assert parse_answer(answer) is None


def test_the_off_topic_answer_says_what_it_is() -> None:
    assert says_what_it_is(ABOUT)
    assert not says_what_it_is("Okay, I am turning off the lamp in the kitchen.")


def test_every_slot_is_filled() -> None:
    rng = random.Random(0)
    texts = [off_topic(rng) for _ in range(3000)]
    assert not [text for text in texts if "{n}" in text or "{h}" in text or "{x}" in text]
    for frame in (*TRAINING, *HELD_OUT):
        text = fill(frame, pick_request(rng), rng)
        assert "{" not in text, text


def test_some_samples_are_long_and_some_bring_a_system_message() -> None:
    rng = random.Random(0)
    samples = [conversation(rng) for _ in range(2000)]
    assert any(len(sample.turns) > 6 for sample in samples)
    assert 0.1 < sum(bool(sample.system) for sample in samples) / len(samples) < 0.3


def test_only_sensible_things_are_asked_of_a_device() -> None:
    for device in DEVICES:
        assert ("set" in device.actions) == bool(device.unit), device.name
