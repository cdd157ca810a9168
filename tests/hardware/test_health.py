"""What ``edged doctor`` makes of the kernel, from trees of files as boards present them."""

import errno
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edged.hardware import health
from edged.hardware.health import Finding

CMDLINE = "console=tty1 root=PARTUUID=4e5a rootfstype=ext4 fsck.repair=yes rootwait"
FILE = "/boot/firmware/cmdline.txt"


def done(remedy: str, root: Path) -> str:
    """The boot parameters after the remedy's command has been obeyed, but for the reboot."""
    command = remedy[remedy.index("sudo sed") + len("sudo ") :].removesuffix(" && sudo reboot")
    subprocess.run(["sh", "-c", command.replace(FILE, f"{root}{FILE}")], check=True)
    return (root / FILE.lstrip("/")).read_text()


@pytest.fixture
def pi(board: Callable[[str], Path], tree: Any) -> Any:
    """A Raspberry Pi 5 as it is after the installation: no memory controller, no PSI."""
    board("pi5-8gb")
    tree.group("sys/fs/cgroup", cgroup__controllers="cpuset cpu io pids")
    tree.write(FILE.lstrip("/"), CMDLINE + "\n")
    tree.write("proc/cmdline", f"coherent_pool=1M cgroup_disable=memory {CMDLINE}\n")
    return tree


# The memory controller


def test_a_pi_without_the_boot_parameter_is_told_which_and_where(pi: Any) -> None:
    finding = health.memory_cgroup(pi.root)

    assert finding.outcome == "warning"
    assert finding.remedy == f"sudo sed -i '1 s/$/ cgroup_enable=memory/' {FILE} && sudo reboot"


def test_what_a_pi_is_told_puts_the_parameter_at_the_end_of_the_one_line(pi: Any) -> None:
    remedy = health.memory_cgroup(pi.root).remedy

    assert remedy
    assert done(remedy, pi.root) == f"{CMDLINE} cgroup_enable=memory\n"


def test_a_pi_with_the_boot_parameter_is_well(pi: Any) -> None:
    pi.group("sys/fs/cgroup", cgroup__controllers="cpuset cpu io memory pids")

    assert health.memory_cgroup(pi.root) == Finding(
        "ok", "the memory controller is on (control groups v2)"
    )


def test_a_parameter_that_was_written_but_not_booted_wants_a_reboot(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE} cgroup_enable=memory\n")

    remedy = health.memory_cgroup(pi.root).remedy
    assert remedy == f"cgroup_enable=memory stands in {FILE} already: sudo reboot"


def test_a_parameter_that_was_booted_in_vain_is_the_kernels_fault(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE} psi=1\n")
    pi.write("proc/cmdline", f"{CMDLINE} psi=1\n")

    assert "this kernel does not have it" in (health.pressure(pi.root).remedy or "")


def test_a_parameter_on_a_line_of_its_own_is_joined_to_the_first(pi: Any) -> None:
    pi.write(FILE.lstrip("/"), f"{CMDLINE}\ncgroup_enable=memory\npsi=1\n")

    remedy = health.memory_cgroup(pi.root).remedy

    assert remedy
    assert "counts only on the first line" in remedy
    assert done(remedy, pi.root) == f"{CMDLINE} cgroup_enable=memory psi=1\n"


def test_a_jetson_is_told_of_extlinux(board: Callable[[str], Path], tree: Any) -> None:
    board("jetson-orin-nano-8gb")
    tree.group("sys/fs/cgroup", cgroup__controllers="cpu")
    tree.write("boot/extlinux/extlinux.conf", "APPEND ${cbootargs} root=/dev/mmcblk0p1\n")

    remedy = health.memory_cgroup(tree.root).remedy

    assert remedy == (
        "add cgroup_enable=memory to the APPEND line of /boot/extlinux/extlinux.conf, "
        "then: sudo reboot"
    )


def test_a_pc_is_told_of_grub(tree: Any) -> None:
    tree.unified_cgroup("/", cgroup__controllers="cpu io")

    assert "/etc/default/grub" in (health.memory_cgroup(tree.root).remedy or "")


def test_the_memory_controller_of_version_1_counts(tree: Any) -> None:
    tree.write("proc/self/cgroup", "4:memory:/user\n0::/user\n")
    tree.write(
        "proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    tree.group("sys/fs/cgroup/memory/user")
    tree.group("sys/fs/cgroup/unified/user", cgroup__controllers="")

    assert health.memory_cgroup(tree.root).found.endswith("(control groups v1)")


def test_without_control_groups_nothing_is_said_against_them(tree: Any) -> None:
    assert health.memory_cgroup(tree.root).outcome == "not applicable"


# Pressure


def test_pressure_that_is_measured_is_told(tree: Any) -> None:
    tree.write(
        "proc/pressure/memory",
        "some avg10=1.00 avg60=2.50 avg300=0.10 total=42\nfull avg10=0.00 avg60=0.00\n",
    )

    finding = health.pressure(tree.root)

    assert (finding.outcome, "2.50 % of the last minute" in finding.found) == ("ok", True)


def test_pressure_that_is_not_there_wants_its_parameter(pi: Any) -> None:
    finding = health.pressure(pi.root)

    assert finding.outcome == "warning"
    assert finding.remedy == f"sudo sed -i '1 s/$/ psi=1/' {FILE} && sudo reboot"


def test_pressure_that_is_there_and_switched_off_wants_its_parameter(pi: Any) -> None:
    def read(path: Path) -> str:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    finding = health.pressure(pi.root, read)

    assert finding.outcome == "warning"
    assert "switched off" in finding.found
    assert "psi=1" in (finding.remedy or "")


def test_pressure_that_may_not_be_read_says_so(pi: Any) -> None:
    def read(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    assert "Permission denied" in health.pressure(pi.root, read).found


# Clock

NOW = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("synchronised", "outcome"), [(True, "ok"), (False, "warning"), (None, "not applicable")]
)
def test_a_clock_is_judged_by_what_the_kernel_says(
    tree: Any, synchronised: bool | None, outcome: str
) -> None:
    finding = health.clock(tree.root, NOW, synchronised=synchronised)

    assert finding.outcome == outcome
    assert "2026-05-01 09:30" in finding.found


def test_a_clock_that_systemd_has_set_is_well(tree: Any) -> None:
    tree.write("run/systemd/timesync/synchronized", "")

    assert health.clock(tree.root, NOW, synchronised=False).outcome == "ok"


def test_a_year_that_cannot_be_is_a_failure(tree: Any) -> None:
    finding = health.clock(tree.root, NOW.replace(year=1970), synchronised=True)

    assert finding.outcome == "failure"
    assert "timedatectl" in (finding.remedy or "")


def test_the_kernels_answer_is_read_where_it_stands() -> None:
    # linux/timex.h on 64 bits: modes and four longs come before.
    assert health._Timex.status.offset == 40
    assert health.kernel_clock_is_synchronised() in (True, False, None)


# Swap

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0  partition\t2097148\t512\t100\n"


def test_swap_that_holds_nothing_of_ours_is_well(tree: Any) -> None:
    tree.write("proc/swaps", SWAPS)

    finding = health.swap(tree.root, 0)

    assert finding == Finding("ok", "/dev/zram0 of 2,048 MiB; nothing of edged is in it")


def test_swap_that_holds_weights_is_a_warning(tree: Any) -> None:
    tree.write("proc/swaps", SWAPS)

    finding = health.swap(tree.root, 300 * 2**20)

    assert finding.outcome == "warning"
    assert "300 MiB" in finding.found
