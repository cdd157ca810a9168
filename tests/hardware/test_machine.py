"""What the machine is called, read from trees of files."""

import platform
from pathlib import Path

import pytest

from edged.hardware.machine import device_name


def write(root: Path, path: str, content: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_boards_name_comes_from_the_device_tree(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path, "proc/cpuinfo", "model name\t: something else\n")

    assert device_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_pcs_name_is_its_processors(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Intel(R) N100: yes\n")

    assert device_name(tmp_path) == "Intel(R) N100: yes"


@pytest.mark.parametrize("cpuinfo", [None, "", "processor\t: 0\nBogoMIPS\t: 108.00\n"])
def test_a_machine_without_a_name_says_its_architecture(
    tmp_path: Path, cpuinfo: str | None
) -> None:
    if cpuinfo is not None:
        write(tmp_path, "proc/cpuinfo", cpuinfo)

    assert device_name(tmp_path) == platform.machine()


def test_a_device_tree_whose_name_is_no_utf8_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/model", b"Board \xff\0")

    assert device_name(tmp_path)


def test_this_machine_has_a_name() -> None:
    assert device_name()
