"""Some thousand of the publishes of ``benchmarks/fuzz``, and whether its judge would notice."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from benchmarks.fuzz.case import Case, dump, load
from benchmarks.fuzz.judge import Finding, judge
from benchmarks.fuzz.mutate import Mutator
from benchmarks.fuzz.seeds import seeds
from edged.errors import InternalFailure
from edged.transports import decode, mqtt

MUTATED = 2_000
MAX_BYTES = 100_000


def mutated(count: int) -> list[Case]:
    random, beginnings = Random(1), seeds()
    mutator = Mutator(random, beginnings, MAX_BYTES)
    return [mutator.mutated(random.choice(beginnings)) for _ in range(count)]


def test_every_kind_of_publish_is_answered_as_the_protocol_says() -> None:
    ends = {judge(case).end for case in seeds()}
    assert ends >= {"accepted", "cancel", "rejected", "not ours", "invalid_request"}


def test_mutated_publishes_are_answered_as_the_protocol_says() -> None:
    for case in mutated(MUTATED):
        judge(case)


def test_a_case_reads_as_it_was_written() -> None:
    for case in mutated(200):
        assert load(dump(case)) == case


def raises(*_: Any, **__: Any) -> Any:
    raise RecursionError


def fails(*_: Any, **__: Any) -> Any:
    raise InternalFailure("a defect")


@pytest.mark.parametrize(
    ("module", "name", "broken", "kind"),
    [
        (decode, "may_reply", lambda *_, **__: True, "forbidden topic"),
        (decode, "json_body", raises, "raises RecursionError in decode.py:decode_prompt"),
        (decode, "json_body", fails, "internal"),
        (mqtt, "encode_reply", lambda *_: b"{", "no JSON"),
        (mqtt, "short", lambda text, _limit: text, "log"),
    ],
)
def test_a_defect_is_noticed(
    module: Any,
    name: str,
    broken: Callable[..., Any],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, broken)
    kinds = set()
    for case in (*seeds(), *mutated(300), Case("plain", "edged/v1/n/prompt/\x1b", b"x")):
        try:
            judge(case)
        except Finding as finding:
            kinds.add(finding.kind)
    assert kind in kinds
