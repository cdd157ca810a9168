"""Prompts that nobody has asked before."""

from itertools import product

import pytest

from edged.bench.prompts import SAMPLE_WORDS, prompt, words_for


def test_the_same_turn_and_client_ask_the_same_on_every_machine():
    assert prompt(3, turn=1, client=0) == "lqrccd garage of light"


def test_no_two_prompts_begin_alike():
    everyone = [
        prompt(8, turn=turn, client=client) for turn, client in product(range(40), range(8))
    ]

    assert len({text[:3] for text in everyone}) > 300


def test_words_come_to_the_tokens_that_a_sample_promises():
    assert len(prompt(SAMPLE_WORDS, turn=0, client=0).split()) == SAMPLE_WORDS + 1
    assert words_for(1000, sample_tokens=48) == 500


@pytest.mark.parametrize("tokens", [1, 2])
def test_there_is_no_empty_prompt(tokens: int):
    assert words_for(tokens, sample_tokens=500) == 1
