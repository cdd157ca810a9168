"""What an operator reads in ``systemctl status``."""

from typing import Any

import pytest

from edged.telemetry.presence import Activity, Condition, state
from edged.telemetry.status_line import status_line

IDLE: dict[str, Any] = state(
    Activity(
        condition=Condition(),
        model_state="serving",
        reason=None,
        since_s=0.0,
        eta_s=None,
        queued=0,
        active=0,
        tokens_per_s=0.0,
        worker_pid=None,
        ready=None,
        needed_bytes=None,
        faults=(),
    )
)


def line(**changes: Any) -> str:
    return status_line(IDLE | changes, "phi-4-mini")


def test_a_node_that_waits_for_prompts_says_so() -> None:
    assert line() == "nominal, serving phi-4-mini; idle"


def test_a_node_at_work_says_how_fast_and_for_how_many() -> None:
    assert (
        line(active=2, queued=3, tokens_per_s=4.12)
        == "nominal, serving phi-4-mini; 2 answered at 4.1 tokens/s, 3 waiting"
    )


def test_a_hot_board_says_why_and_how_hot_it_is_and_may_be() -> None:
    assert line(
        level="throttled",
        reason="cpu-thermal: held below 80 °C",
        temperature_c=79.4,
        limit_c=80.0,
    ) == ("throttled, serving phi-4-mini (cpu-thermal: held below 80 °C); idle; 79.4 of 80 °C")


def test_without_a_limit_there_is_the_temperature_alone() -> None:
    assert line(temperature_c=45.0).endswith("; 45 °C")


@pytest.mark.parametrize(
    ("model_state", "words"),
    [
        ("loading", "loading the model"),
        ("switching", "switching to another model"),
        ("unloaded", "model unloaded"),
        ("refused", "model not served"),
    ],
)
def test_a_node_without_a_model_says_what_it_does(model_state: str, words: str) -> None:
    said = status_line(IDLE | {"model_state": model_state, "reason": "why", "queued": 4}, None)

    assert said == f"nominal, {words} (why); 0 answered, 4 waiting"


def test_faults_come_last_each_with_its_name() -> None:
    assert line(faults=["broker: refused", "clock: EROFS"]).endswith(
        "; idle; fault: broker: refused; fault: clock: EROFS"
    )
