"""Whether an engine was built for the processor that it runs on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.hardware import health_build
from edged.hardware.health import Finding

PLAIN = "CPU : SSE3 = 1 | SSSE3 = 1 | LLAMAFILE = 1 | REPACK = 1 | "
HASWELL = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | "


def test_a_build_for_this_processor_is_well(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)

    finding = health_build.build(HASWELL, health_build.cpu_flags(tree.root), "build")

    assert finding == Finding("ok", "llama.cpp was built for this processor (AVX2, F16C, FMA)")


def test_a_build_for_more_than_the_processor_has_will_crash(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)
    info = HASWELL + "AVX512 = 1 | AVX512_VNNI = 1 | "

    finding = health_build.build(info, health_build.cpu_flags(tree.root), "build")

    assert (finding.outcome, finding.remedy) == ("failure", "build")
    assert "AVX512, AVX512_VNNI, which this processor does not have" in finding.found


def test_a_build_for_less_than_the_processor_has_is_slow(tree: Any) -> None:
    tree.x86_cpus("Intel(R) Core(TM) i5-4570", cores=4)

    finding = health_build.build(PLAIN, health_build.cpu_flags(tree.root), "build")

    assert (finding.outcome, finding.remedy) == ("warning", "build")
    assert "without AVX2, F16C, FMA, which this processor has" in finding.found


@pytest.mark.parametrize(("board_name", "outcome"), [("pi5-8gb", "warning"), ("pi4-8gb", "ok")])
def test_a_build_without_dotprod_is_slow_where_there_is_dotprod(
    board: Callable[[str], Path], board_name: str, outcome: str
) -> None:
    flags = health_build.cpu_flags(board(board_name))

    finding = health_build.build("CPU : NEON = 1 | ARM_FMA = 1 | ", flags, "build")

    assert finding.outcome == outcome


def test_a_build_for_a_pi_5_crashes_on_a_pi_4(board: Callable[[str], Path]) -> None:
    flags = health_build.cpu_flags(board("pi4-8gb"))

    finding = health_build.build("CPU : NEON = 1 | FP16_VA = 1 | DOTPROD = 1 | ", flags, "build")

    assert (finding.outcome, "FP16_VA, DOTPROD" in finding.found) == ("failure", True)


def test_what_cannot_be_told_is_no_fault(tree: Any) -> None:
    assert health_build.build(HASWELL, health_build.cpu_flags(tree.root), "").outcome == "ok"
