"""What a node says of itself, read from trees of files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import edged
from edged.engine.frames import Load, Ready
from edged.engine.plan_frames import Answer
from edged.messages import MemoryReading, Reading
from edged.telemetry import presence
from edged.telemetry.presence import (
    Activity,
    Condition,
    changed,
    resident_bytes,
    state,
)

HOT = Condition(
    level="throttled",
    reason="cpu-thermal: held below 80 °C",
    sensor="cpu-thermal",
    limit_c=80.0,
    forecast_c=79.6,
    reading=Reading(
        1.0,
        temperature_c=79.412,
        temperature_sensor="cpu-thermal",
        fan_rpm=2400,
        clock_mhz=1500.04,
        watts=5.567,
        memory=MemoryReading(2**30, 2**33, "MemAvailable", stalled_share=0.02),
    ),
)
READY = Ready("llama_cpp", "phi-3-mini", "Q4_0", 4096, 2, 1.5, 10, 20)
ACTIVITY = Activity(
    condition=Condition(),
    model_state="serving",
    reason=None,
    since_s=1234.56789,
    eta_s=None,
    queued=3,
    active=1,
    tokens_per_s=12.3456,
    worker_pid=None,
    ready=READY,
    needed_bytes=30,
    faults=("broker: refused",),
)


PLANNED = Answer(
    load=Load("auto", "tiny.gguf", "", 1024, 1, 2, 0),
    rope="plain",
    steps=("q8_0 cache instead of f16",),
)


def card(ready: Ready | None, speed: float | None) -> dict[str, object]:
    return presence.card("attic", ready, speed, "pi5-8gb", PLANNED)


def write(root: Path, path: str, content: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


# The card


def test_the_card_has_the_fields_of_the_wire_protocol() -> None:
    assert set(card(READY, 12.5)) == {
        "node",
        "version",
        "device",
        "profile",
        "engine",
        "model",
        "quant",
        "ctx",
        "slots",
        "kv_type",
        "gpu_layers",
        "rope",
        "fallbacks",
        "decode_tokens_per_s",
        "features",
        "pools",
    }


def test_the_card_says_what_is_served() -> None:
    said = card(READY, 12.5)

    assert [said[name] for name in ("node", "version", "engine", "model", "quant", "ctx")] == [
        "attic",
        edged.__version__,
        "llama_cpp",
        "phi-3-mini",
        "Q4_0",
        4096,
    ]


def test_the_card_tells_the_plan_and_what_had_to_give_for_it() -> None:
    said = card(READY, 12.5)

    assert [said[name] for name in ("profile", "kv_type", "gpu_layers", "rope")] == [
        "pi5-8gb",
        "f16",
        0,
        "plain",
    ]
    assert said["fallbacks"] == ["q8_0 cache instead of f16"]


def test_the_card_leaves_open_what_needs_a_model_until_there_is_one() -> None:
    said = card(None, None)

    assert {said[name] for name in ("engine", "model", "quant", "ctx", "slots")} == {None}


def test_the_card_and_the_state_can_be_sent_as_json() -> None:
    assert json.loads(json.dumps([card(READY, 1.0), state(ACTIVITY)]))


# The state


def test_the_state_says_what_the_node_is_doing() -> None:
    said = state(ACTIVITY)
    del said["memory"]

    assert said == {
        "level": "nominal",
        "reason": None,
        "eta_s": None,
        "sensor": None,
        "temperature_c": None,
        "limit_c": None,
        "forecast_c": None,
        "fan_rpm": None,
        "clock_mhz": None,
        "watts": None,
        "since": 1234.568,
        "queued": 3,
        "active": 1,
        "tokens_per_s": 12.35,
        "model_state": "serving",
        "faults": ["broker: refused"],
    }


def test_the_state_says_how_much_memory_the_worker_holds() -> None:
    memory = state(replace(ACTIVITY, worker_pid=os.getpid()))["memory"]

    assert 2**20 < memory["worker_bytes"] < 2**40


def test_the_state_says_how_much_a_load_needs_and_could_take() -> None:
    memory = state(replace(ACTIVITY, condition=HOT))["memory"]

    assert (memory["needed_bytes"], memory["available_bytes"]) == (30, 2**30)


def test_the_state_of_a_hot_board_says_how_hot_it_is_and_may_be() -> None:
    said = state(replace(ACTIVITY, condition=HOT))

    assert {key: said[key] for key in ("level", "reason", "sensor", "fan_rpm")} == {
        "level": "throttled",
        "reason": "cpu-thermal: held below 80 °C",
        "sensor": "cpu-thermal",
        "fan_rpm": 2400,
    }
    assert {key: said[key] for key in ("temperature_c", "limit_c", "forecast_c", "watts")} == {
        "temperature_c": 79.4,
        "limit_c": 80.0,
        "forecast_c": 79.6,
        "watts": 5.6,
    }


def test_a_level_that_changes_is_something_new() -> None:
    assert changed(state(ACTIVITY), state(replace(ACTIVITY, condition=HOT)))


def test_a_temperature_that_moves_a_little_is_not() -> None:
    warmer = replace(HOT, reading=replace(HOT.reading, temperature_c=79.9))

    assert not changed(
        state(replace(ACTIVITY, condition=HOT)), state(replace(ACTIVITY, condition=warmer))
    )


def test_without_a_worker_its_memory_is_unknown() -> None:
    assert state(ACTIVITY)["memory"]["worker_bytes"] is None


def test_the_first_state_has_changed() -> None:
    assert changed(None, state(ACTIVITY))


@pytest.mark.parametrize(
    "other",
    [
        replace(ACTIVITY, queued=4),
        replace(ACTIVITY, active=2),
        replace(ACTIVITY, model_state="loading"),
        replace(ACTIVITY, reason="why"),
        replace(ACTIVITY, faults=()),
    ],
)
def test_a_state_that_says_something_new_has_changed(other: Activity) -> None:
    assert changed(state(ACTIVITY), state(other))


def test_speed_and_memory_that_move_a_little_are_no_change() -> None:
    before = state(ACTIVITY)
    after = state(replace(ACTIVITY, tokens_per_s=1.0)) | {"memory": {"available_bytes": 1}}

    assert not changed(before, after)


# The files behind them


def test_resident_memory_is_what_the_kernel_says_in_bytes(tmp_path: Path) -> None:
    write(tmp_path, "proc/42/status", "Name:\tedged\nVmPeak:\t  900 kB\nVmRSS:\t  300 kB\n")

    assert resident_bytes(42, tmp_path) == 300 * 1024


def test_resident_memory_of_a_process_that_is_gone_is_unknown(tmp_path: Path) -> None:
    assert resident_bytes(42, tmp_path) is None


def test_resident_memory_of_a_zombie_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, "proc/42/status", "Name:\tedged\nState:\tZ (zombie)\n")

    assert resident_bytes(42, tmp_path) is None
