"""How busy others are: processors' time less our own."""

import time
from pathlib import Path

import pytest

from edged.engine.others import LOOK_S, OtherWork


def write(root: Path, **ticks: int) -> None:
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest")
    file = root / "proc/stat"
    file.parent.mkdir(exist_ok=True)
    fields = " ".join(str(ticks.get(name, 0)) for name in names)
    file.write_text(f"cpu  {fields} 0\ncpu0 1 2 3\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, and what this process has spent of a processor's."""
    now = [100.0, 10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[1])
    monkeypatch.setattr("os.sysconf", lambda _name: 100)
    return now


def test_nothing_is_known_at_the_first_look(tmp_path: Path, clock: list[float]) -> None:
    write(tmp_path, user=1000)

    assert OtherWork(tmp_path).cores() is None


@pytest.mark.parametrize("kind", ["user", "nice", "system", "irq", "softirq", "steal"])
def test_what_is_neither_idle_nor_ours_is_others(
    kind: str, tmp_path: Path, clock: list[float]
) -> None:
    write(tmp_path)
    others = OtherWork(tmp_path)
    others.cores()
    write(tmp_path, **{kind: 300})
    clock[0] += 2
    clock[1] += 1

    assert others.cores() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["idle", "iowait", "guest"])
def test_idle_and_counted_time_is_nobodys(kind: str, tmp_path: Path, clock: list[float]) -> None:
    write(tmp_path)
    others = OtherWork(tmp_path)
    others.cores()
    write(tmp_path, **{kind: 300})
    clock[0] += 2

    assert others.cores() == 0


def test_it_is_not_looked_at_too_often(tmp_path: Path, clock: list[float]) -> None:
    write(tmp_path)
    others = OtherWork(tmp_path)
    others.cores()
    write(tmp_path, user=300)
    clock[0] += LOOK_S / 2

    assert others.cores() is None


def test_what_others_did_while_we_rested_does_not_count(tmp_path: Path, clock: list[float]) -> None:
    write(tmp_path)
    others = OtherWork(tmp_path)
    others.cores()
    write(tmp_path, user=2000)
    clock[0] += 20
    others.resume()
    write(tmp_path, user=2100)
    clock[0] += 2

    assert others.cores() == pytest.approx(0.5)


def test_a_kernel_that_does_not_tell_leaves_it_open(tmp_path: Path, clock: list[float]) -> None:
    others = OtherWork(tmp_path)
    clock[0] += 2

    assert (others.cores(), others.cores()) == (None, None)


def test_this_machine_tells() -> None:
    others = OtherWork()
    others.cores()
    time.sleep(LOOK_S)

    cores = others.cores()
    assert cores is not None
    assert cores >= 0
