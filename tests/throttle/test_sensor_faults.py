"""Sensors that lie, in any order: the files of a simulated board, the sensors, the governor.

The campaign (``pytest -m campaign tests/throttle/test_sensor_faults.py``) runs 10,000 sequences.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.hardware.board import Board, board_of
from edged.hardware.profile import read_profile
from edged.hardware.sensors import Sensors
from edged.messages import Reading
from edged.throttle.governor import Decision, Demand, ThermalGovernor

BOARD = board_of(read_profile("pi5-8gb"), cores=4)
ZONE = "sys/class/thermal/thermal_zone0"
MIRROR = "sys/class/hwmon/hwmon0"
FIRMWARE = "sys/devices/platform/soc/firmware/get_throttled"
IDLE_W = 2.2
TINY_W = 0.02
"""Duties are sent with three digits."""

lies = st.one_of(
    st.none(),  # the file is gone
    st.sampled_from([b"", b"-256000\n", b"0\n", b"200000\n", b"nan\n", b"\xff\xfe", b"9" * 400]),
    st.integers(-300_000, 300_000).map(lambda each: b"%d\n" % each),
    st.binary(max_size=8),
)
truths = st.integers(40_000, 90_000).map(lambda each: b"%d\n" % each)
steps = st.lists(
    st.tuples(
        st.one_of(lies, truths),
        st.one_of(lies, truths),
        st.one_of(lies, st.sampled_from([b"0\n", b"4\n", b"e0000\n"])),
        st.sampled_from([Demand(0, 0, 0), Demand(0, 1, 0), Demand(1, 0, 1)]),
        st.sampled_from([0.0, 0.5, 0.5, 0.5, 5.0, 400.0]),
    ),
    min_size=1,
    max_size=40,
)
Sequence = list[tuple[bytes | None, bytes | None, bytes | None, Demand, float]]


def write(path: Path, content: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def drawn_w(decision: Decision, demand: Demand, board: Board = BOARD) -> float:
    """On average, computed apart from the governor."""
    pace = decision.pace
    if pace.paused:
        return IDLE_W
    threads = pace.threads_prefill if demand.reading else pace.threads_decode
    duty = pace.duty_prefill if demand.reading else pace.duty_decode
    full_w = next(point.watts for point in board.points if point.threads == (threads or 4))
    return IDLE_W + duty * (full_w - IDLE_W) * ((decision.clock_mhz or 2400) / 2400) ** 3


def endure(sequence: Sequence, *, has_clock: bool) -> None:
    now_s = 0.0
    governor = ThermalGovernor(BOARD, has_clock=has_clock)
    blind_w = governor.blind_w(80.0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / ZONE / "type", b"cpu-thermal\n")
        write(root / MIRROR / "name", b"cpu_thermal\n")
        sensors = Sensors(root, zone="cpu-thermal", monotonic=lambda: now_s)
        watts = IDLE_W
        for zone, mirror, firmware, demand, pause_s in sequence:
            now_s += pause_s
            write(root / ZONE / "temp", zone)
            write(root / MIRROR / "temp1_input", mirror)
            write(root / FIRMWARE, firmware)
            reading = sensors.read(watts)
            decision = governor.decide(reading, demand)
            watts = decision.watts
            check(reading, decision, demand, blind_w)


def check(reading: Reading, decision: Decision, demand: Demand, blind_w: float) -> None:
    if reading.temperature_c is None:
        assert reading.faults
        assert drawn_w(decision, demand) <= blind_w + TINY_W
    else:
        assert -40 <= reading.temperature_c <= 150


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.booleans())
def test_no_lie_breaks_the_governor_nor_makes_it_bold(sequence: Sequence, has_clock: bool) -> None:
    endure(sequence, has_clock=has_clock)


@pytest.mark.campaign
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.booleans())
def test_ten_thousand_lies(sequence: Sequence, has_clock: bool) -> None:
    endure(sequence, has_clock=has_clock)
