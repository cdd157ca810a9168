"""Whether an inference library was built for this processor: its build against /proc/cpuinfo."""

import re
from pathlib import Path
from typing import Final

from edged.hardware.cgroups import read_text
from edged.hardware.health import Finding, failure, ok, warning

# What llama_print_system_info calls an instruction set (ggml-cpu.cpp) → /proc/cpuinfo's word.
_FLAGS: Final = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
    "SME": "sme",
}
_WORTH: Final = ("AVX2", "F16C", "FMA", "AVX512", "NEON", "FP16_VA", "DOTPROD", "MATMUL_INT8")
"""Those without which the kernels of 4-bit weights are clearly slower."""


def cpu_flags(root: Path) -> frozenset[str]:
    """What /proc/cpuinfo says of the first processor; empty where it says nothing."""
    text = read_text(root / "proc/cpuinfo") or ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


def built_for(system_info: str) -> frozenset[str]:
    """The instruction sets that a build uses, of what llama_print_system_info answers."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info)) & _FLAGS.keys()


def build(system_info: str, flags: frozenset[str], remedy: str) -> Finding:
    """``remedy`` is how to build it anew for this machine."""
    used = built_for(system_info)
    if not flags or not used:
        return ok("whether it was built for this processor cannot be told")
    lacking = [name for name in _FLAGS if name in used and _FLAGS[name] not in flags]
    if lacking:
        return failure(
            f"llama.cpp was built to use {', '.join(lacking)}, which this processor does not "
            "have: it will crash",
            remedy,
        )
    unused = [name for name in _WORTH if _FLAGS[name] in flags and name not in used]
    if unused:
        return warning(
            f"llama.cpp was built without {', '.join(unused)}, which this processor has: it is "
            "slower than it could be",
            remedy,
        )
    known = ", ".join(name for name in _WORTH if name in used)
    return ok(f"llama.cpp was built for this processor ({known})")
