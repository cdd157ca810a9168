"""Time that goes on over restarts, whatever becomes of the other clocks."""

from dataclasses import dataclass, replace
from pathlib import Path

from edged.spool.clock import Mark, SpoolClock, boot_id


@dataclass
class Machine:
    """The clocks of a machine, as the test sets them."""

    boot_s: float = 1000.0
    wall_s: float = 1_700_000_000.0
    boot: str = "first"

    def pass_time(self, seconds: float) -> None:
        self.boot_s += seconds
        self.wall_s += seconds

    def reboot(self, off_s: float, *, wall_s: float | None = None) -> None:
        """Off for so long; ``wall_s`` is what the wall clock says afterwards."""
        self.boot_s = 5.0
        self.wall_s = self.wall_s + off_s if wall_s is None else wall_s
        self.boot = "second"

    def clock(self, last: Mark | None = None) -> SpoolClock:
        return SpoolClock(
            last, boot_s=lambda: self.boot_s, wall_s=lambda: self.wall_s, this_boot=self.boot
        )


def test_it_begins_at_zero_and_goes_on() -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now_s()
    machine.pass_time(10)

    assert (before, clock.now_s()) == (0.0, 10.0)


def test_it_goes_on_while_the_daemon_is_gone() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_time(10)
    mark = clock.mark()
    machine.pass_time(100)

    assert machine.clock(mark).now_s() == 110.0


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall_s += 3600
    mark = clock.mark()
    machine.wall_s -= 7200
    machine.pass_time(10)

    assert (clock.now_s(), machine.clock(mark).now_s()) == (10.0, 10.0)


def test_over_a_reboot_the_wall_clock_says_how_long_it_took() -> None:
    machine = Machine()
    mark = machine.clock().mark()
    machine.reboot(off_s=3600)
    clock = machine.clock(mark)
    machine.pass_time(10)

    assert clock.now_s() == 3610.0


def test_over_a_reboot_it_never_goes_back() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_time(50)
    mark = clock.mark()
    machine.reboot(off_s=60, wall_s=0.0)  # a board without a battery wakes up in 1970

    assert machine.clock(mark).now_s() == 50.0


def test_where_no_boot_is_told_from_another_the_wall_clock_counts() -> None:
    machine = Machine(boot="")
    mark = machine.clock().mark()
    machine.boot_s = 5.0
    machine.wall_s += 20

    assert machine.clock(mark).now_s() == 20.0


def test_a_mark_says_all_clocks() -> None:
    machine = Machine()
    clock = machine.clock(Mark(7.0, machine.boot_s, machine.wall_s, machine.boot))

    assert clock.mark() == Mark(7.0, machine.boot_s, machine.wall_s, machine.boot)


def test_marks_of_many_runs_add_up() -> None:
    machine = Machine()
    mark = None
    for _ in range(10):
        clock = machine.clock(mark)
        machine.pass_time(10)
        mark = replace(clock.mark())

    assert mark is not None
    assert mark.spool_s == 100.0


def test_the_real_clock_goes_on_from_its_mark() -> None:
    first = SpoolClock(None)
    second = SpoolClock(first.mark())

    assert second.now_s() >= first.mark().spool_s - 0.001


def test_the_boot_has_a_name_where_the_kernel_gives_one(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("6a1f\n")

    assert boot_id(tmp_path / "boot_id") == "6a1f"
    assert boot_id(tmp_path / "absent") == ""


def test_a_wall_clock_that_was_not_set_before_a_reboot_says_nothing() -> None:
    machine = Machine(wall_s=0.0)
    before = machine.clock(None)
    machine.boot_s += 100
    mark = before.mark()
    machine.reboot(5.0, wall_s=1_700_000_000.0)

    assert machine.clock(mark).now_s() == mark.spool_s
