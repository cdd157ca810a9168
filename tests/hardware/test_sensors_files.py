"""Numbers in files, and why there is none."""

from pathlib import Path

import pytest

from edged.hardware.plausible import BITS, CLOCK
from edged.hardware.sensors_files import file_sensor, found, number


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"61000\n", 61000),
        (b"-256000", -256000),
        (b" 5 \n7\n", 5),
        (b"", "reads empty"),
        (b"\n", "reads empty"),
        (b"12 34\n", "reads what is no number"),
        (b"\xff\xfe", "reads what is no number"),
        (b"9" * 5000, "reads what is no number"),
    ],
)
def test_a_number_or_why_there_is_none(tmp_path: Path, content: bytes, expected: int | str) -> None:
    (tmp_path / "temp").write_bytes(content)

    assert number(str(tmp_path / "temp")) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [("50005\n", 0x50005), ("0x8\n", 8), ("e0000", 0xE0000), ("g", "reads what is no number")],
)
def test_a_hexadecimal_number(tmp_path: Path, content: str, expected: int | str) -> None:
    (tmp_path / "get_throttled").write_text(content)

    assert number(str(tmp_path / "get_throttled"), base=16) == expected


@pytest.mark.parametrize("path", ["nowhere", "temp/below", "a\0b", ""])
def test_a_file_that_is_not_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "temp").write_text("1")

    assert number(path and f"{tmp_path}/{path}") == "is not there any more"


def test_what_does_not_answer_says_with_which_error(tmp_path: Path) -> None:
    assert number(str(tmp_path)) == "does not answer (EISDIR)"


def test_a_sensor_that_was_slow_is_not_opened_before_its_time(tmp_path: Path) -> None:
    path = tmp_path / "scaling_cur_freq"
    path.write_text("1500000")
    now_s = iter([0, 1, *range(10, 1000)])  # a second passes at each look at the clock
    clock = file_sensor("clock", str(path), CLOCK, lambda: float(next(now_s)), divisor=1000)

    read = [clock.read() for _ in range(4)]

    assert read == [1500.0, 1500.0, 1500.0, None]


def test_folders_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for index in (10, 2, 1):
        (tmp_path / f"hwmon{index}").mkdir()

    assert [Path(path).name for path in found(tmp_path, "hwmon*")] == [
        "hwmon1",
        "hwmon2",
        "hwmon10",
    ]


def test_a_root_with_a_star_in_its_name_is_only_a_name(tmp_path: Path) -> None:
    (tmp_path / "a*" / "x").mkdir(parents=True)
    (tmp_path / "ab" / "x").mkdir(parents=True)

    assert found(tmp_path / "a*", "*") == [str(tmp_path / "a*" / "x")]


def test_a_gone_file_is_told_from_one_that_is_empty(tmp_path: Path) -> None:
    empty, gone = (
        file_sensor(name, str(tmp_path / name), BITS, lambda: 0.0) for name in ("empty", "gone")
    )
    (tmp_path / "empty").touch()
    empty.read()
    gone.read()

    assert (empty.is_gone, gone.is_gone) == (False, True)
