"""The flood of ``benchmarks/flood`` for a few seconds: what it says of behaviour, not of speed."""

from collections.abc import Iterator

import pytest
from node import Broker

from benchmarks.bus import daemon
from benchmarks.flood.run import FLOODED, QUEUE, SLOTS, Flooding, flood


@pytest.fixture(scope="module")
def flooding(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooding]:
    folder = tmp_path_factory.mktemp("flood")
    settings = {"engine__name": "llama_cpp", "engine__slots": SLOTS, "engine__ctx": 512}
    settings |= {"queue__max_prompts": QUEUE}
    with daemon(folder, broker.port, "flood", **settings) as node:
        yield flood(broker.port, node, pairs=1, seconds=4.0, per_minute=10_000, max_tokens=400)


def test_each_prompt_of_a_flood_is_answered(flooding: Flooding):
    (flooded,) = flooding.of(FLOODED)

    assert (flooding.unanswered, flooding.strange) == (0, {})
    assert flooded.flood["acknowledged"] == flooded.flood["published"]
    assert flooded.refused > 0  # how many depends on how fast the others end


def test_a_flood_that_is_refused_does_not_stop_who_is_being_answered(flooding: Flooding):
    assert all(window.tokens_per_s > 0 for window in flooding.windows)
