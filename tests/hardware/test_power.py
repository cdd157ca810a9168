"""What the machine draws, from files as the kernel has them."""

from pathlib import Path

from edged.hardware.power import measured_watts


def rapl(root: Path, zone: str, energy_uj: int) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path):
    with measured_watts(tmp_path) as power:
        pass

    assert power.watts is None


def test_the_packages_are_summed_and_their_parts_are_not(tmp_path: Path):
    first, second = rapl(tmp_path, "intel-rapl:0", 0), rapl(tmp_path, "intel-rapl:1", 0)
    part = rapl(tmp_path, "intel-rapl:0:0", 0)
    with measured_watts(tmp_path) as one:
        first.write_text("1000000")
    with measured_watts(tmp_path) as both:
        first.write_text("2000000")
        second.write_text("900000000")
        part.write_text("900000000")

    assert one.watts is not None
    assert both.watts is not None
    assert both.watts > one.watts > 0


def test_a_counter_that_began_again_has_gone_on(tmp_path: Path):
    counter = rapl(tmp_path, "intel-rapl:0", 999_999_999)
    with measured_watts(tmp_path) as power:
        counter.write_text("1")

    assert power.watts is not None
    assert power.watts >= 0


def test_a_sensors_average_is_taken_where_there_is_no_counter(tmp_path: Path):
    sensor = tmp_path / "sys/class/hwmon/hwmon3"
    sensor.mkdir(parents=True)
    (sensor / "power1_average").write_text("7500000\n")
    with measured_watts(tmp_path) as power:
        pass

    assert power.watts == 7.5
