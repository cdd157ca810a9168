"""What of a sensor is believed, and how its fault is named."""

import pytest

from edged.hardware.plausible import CLOCK, TEMPERATURE, Plausible

HALF_S = 0.5


class Watch:
    """A temperature sensor read twice a second."""

    def __init__(self) -> None:
        self.plausible = Plausible("cpu-thermal", TEMPERATURE)
        self.now_s = 1000.0

    def read(self, raw: float | str, took_s: float = 0.0, watts: float | None = None):
        self.now_s += HALF_S
        return self.plausible.weigh(raw, self.now_s, took_s, watts)

    @property
    def fault(self) -> str | None:
        return self.plausible.fault(self.now_s)


def test_a_temperature_is_believed() -> None:
    watch = Watch()

    assert [watch.read(each) for each in (45.0, 45.5, 61.0, -12.5)] == [45.0, 45.5, 61.0, None]


def test_a_believed_temperature_is_no_fault() -> None:
    watch = Watch()
    watch.read(45.0)

    assert watch.fault is None


@pytest.mark.parametrize("celsius", [-256.0, 200.0, -40.5, 150.5, 1e15, float("nan")])
def test_what_no_chip_can_have_is_not_believed(celsius: float) -> None:
    watch = Watch()

    assert [watch.read(celsius) for _ in range(10)] == [None] * 10
    assert watch.fault == f"cpu-thermal: reads {celsius:g} °C, which cannot be"


def test_exactly_zero_is_a_sensor_that_is_not_connected() -> None:
    watch = Watch()

    assert [watch.read(each) for each in (0.0, 60.0, 0.0, 0.0, 0.0, 0.0)] == [
        *(None, 60.0, None, None, None, None),
    ]


def test_in_the_frost_zero_can_be() -> None:
    watch = Watch()

    assert [watch.read(each) for each in (1.0, 0.0, -1.0)] == [1.0, 0.0, -1.0]


def test_a_jump_is_not_believed_and_named_with_both_ends() -> None:
    watch = Watch()
    watch.read(60.0)

    assert watch.read(95.0) is None
    assert watch.fault == "cpu-thermal: jumped from 60 to 95 °C"


def test_after_a_jump_three_readings_that_agree_are_believed() -> None:
    watch = Watch()
    watch.read(60.0)

    assert [watch.read(each) for each in (95.0, 93.0, 94.0, 95.0)] == [None, None, 94.0, 95.0]


def test_readings_that_jump_about_are_never_believed() -> None:
    watch = Watch()
    watch.read(60.0)

    assert [watch.read(each) for each in (95.0, 20.0, 110.0) * 5] == [None] * 15


def test_readings_that_agree_must_follow_one_another() -> None:
    watch = Watch()
    watch.read(60.0)

    assert [watch.read(each) for each in (95.0, 95.0, 200.0, 95.0, 95.0)] == [None] * 5


def test_back_where_it_was_it_is_believed_at_once() -> None:
    watch = Watch()
    watch.read(60.0)
    watch.read(-256.0)

    assert watch.read(61.0) == 61.0


def test_a_fault_stays_named_for_a_while_and_then_goes() -> None:
    watch = Watch()
    watch.read("reads empty")
    watch.read(60.0)
    soon = watch.fault
    for _ in range(20):
        watch.read(60.0)

    assert (soon, watch.fault) == ("cpu-thermal: reads empty", None)


def test_a_faults_text_keeps_the_first_odd_value() -> None:
    watch = Watch()
    texts = set()
    for tenth in range(100):
        watch.read(200.0 + tenth)
        texts.add(watch.fault)

    assert texts == {"cpu-thermal: reads 200 °C, which cannot be"}


def test_faults_that_alternate_do_not_change_the_text_at_each_reading() -> None:
    watch = Watch()
    texts = []
    for _ in range(10):
        for raw in ("reads empty", 200.0):
            watch.read(raw)
            texts.append(watch.fault)

    assert set(texts) == {"cpu-thermal: reads empty"}


def test_a_fault_that_became_another_is_named_so_in_the_end() -> None:
    watch = Watch()
    watch.read(200.0)
    for _ in range(30):
        watch.read("is not there any more")

    assert watch.fault == "cpu-thermal: is not there any more"


def stuck_after_s(watch: Watch, watts: list[float | None], raw: float = 50.0) -> float | None:
    """When it was found stuck, with one estimate of the power a reading."""
    began_s = watch.now_s
    for each in watts:
        if watch.read(raw, watts=each) is None:
            return watch.now_s - began_s
    return None


def test_a_value_that_ignores_the_power_is_stuck() -> None:
    watch = Watch()

    found_s = stuck_after_s(watch, [2.2] * 80 + [5.6] * 80)

    assert found_s == 40 + 30 + HALF_S
    assert watch.fault == "cpu-thermal: stuck at 50 °C although the board's power has changed"


def test_a_value_is_not_stuck_before_it_has_stayed_for_a_minute() -> None:
    assert stuck_after_s(Watch(), [2.2] * 2 + [5.6] * 200) == 60 + HALF_S


def test_a_value_that_repeats_at_the_same_power_is_not_stuck() -> None:
    assert stuck_after_s(Watch(), [2.2, 3.1] * 5000) is None


def test_without_an_estimate_nothing_is_stuck() -> None:
    assert stuck_after_s(Watch(), [None] * 5000) is None


def test_a_power_that_comes_back_proves_nothing() -> None:
    assert stuck_after_s(Watch(), ([2.2] * 20 + [5.6] * 50) * 20) is None


def test_what_was_stuck_is_not_believed_when_the_power_comes_back() -> None:
    watch = Watch()
    stuck_after_s(watch, [2.2] * 80 + [5.6] * 80)

    assert watch.read(50.0, watts=2.2) is None


def test_what_was_stuck_is_believed_when_it_moves() -> None:
    watch = Watch()
    stuck_after_s(watch, [2.2] * 80 + [5.6] * 80)

    assert watch.read(50.5, watts=5.6) == 50.5


def test_a_slow_reading_is_used_and_named() -> None:
    watch = Watch()

    assert watch.read(60.0, took_s=0.45) == 60.0
    assert watch.fault == "cpu-thermal: took 450 ms to read"


def test_a_sensor_that_stays_slow_is_read_only_now_and_then() -> None:
    watch = Watch()
    for _ in range(3):
        watch.read(60.0, took_s=0.45)

    due = [watch.plausible.is_due(watch.now_s + later_s) for later_s in (0.5, 29.5, 30.0)]
    assert due == [False, False, True]
    assert watch.plausible.fault(watch.now_s + 29.5) == "cpu-thermal: took 450 ms to read"


def test_a_sensor_that_is_quick_again_is_read_as_before() -> None:
    watch = Watch()
    for _ in range(3):
        watch.read(60.0, took_s=0.45)
    watch.read(60.0)

    assert watch.plausible.is_due(watch.now_s + HALF_S)


def test_other_sensors_may_jump() -> None:
    clock = Plausible("clock", CLOCK)

    assert [clock.weigh(mhz, second) for second, mhz in enumerate((600.0, 2400.0, 0.0))] == [
        *(600.0, 2400.0, None),
    ]
