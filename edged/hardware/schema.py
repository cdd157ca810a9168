"""What a hardware profile holds: one schema for every file of ``hw_profiles``.

Units stand in the names of the keys: MiB are 2**20 bytes, GB are 10**9 (as data sheets
count bandwidth). What a profile leaves unset is read from the machine or measured
(``edged.hardware.detect``).
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MIB = 2**20
_GB = 10**9

Mib = Annotated[int, Field(ge=0, le=2**24)]
Celsius = Annotated[float, Field(ge=-40, le=150)]
Share = Annotated[float, Field(ge=0, le=2, description="relative to full speed, which is 1")]
Threads = Annotated[int, Field(ge=1, le=1024)]
Patterns = Annotated[tuple[str, ...], Field(description="any of them; * stands for any text")]
MibRange = Annotated[tuple[Mib, Mib], Field(description="lowest and highest, both included")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Match(_Table):
    """When a machine is of this kind: every condition that is given must hold."""

    device_tree_model: Patterns = ()
    device_tree_compatible: Patterns = ()
    gpu_name: Patterns = ()
    cpu_model: Patterns = ()
    tegra_release: Patterns = ()
    architecture: Patterns = ()
    gpu_memory_mib: MibRange | None = None
    memory_mib: MibRange | None = None

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("has no condition, so it would match every machine")
        for name in ("gpu_memory_mib", "memory_mib"):
            bounds = getattr(self, name)
            if bounds and bounds[0] > bounds[1]:
                raise ValueError(f"{name} begins above its end")
        return self


class Memory(_Table):
    """RAM, and the GPU's own memory where it has some."""

    total_mib: Mib | None = Field(None, description="MemTotal; unset: read from the machine")
    kept_for_system_mib: Mib
    unified: bool = Field(default=False, description="GPU and CPU share the RAM")
    vram_mib: Mib = Field(0, description="the GPU's own memory; 0 without GPU, or unified")
    vram_kept_mib: Mib = Field(0, description="of vram_mib, for driver and desktop")

    @property
    def total_bytes(self) -> int | None:
        return None if self.total_mib is None else self.total_mib * _MIB

    @property
    def kept_for_system_bytes(self) -> int:
        """What the system and the board's other services need of the RAM."""
        return self.kept_for_system_mib * _MIB

    @property
    def vram_bytes(self) -> int:
        return self.vram_mib * _MIB

    @property
    def vram_kept_bytes(self) -> int:
        return self.vram_kept_mib * _MIB

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.total_mib is not None and self.kept_for_system_mib >= self.total_mib:
            raise ValueError("kept_for_system_mib leaves nothing of total_mib")
        if self.vram_kept_mib > self.vram_mib:
            raise ValueError("vram_kept_mib is more than vram_mib")
        if self.unified and self.vram_mib:
            raise ValueError("unified memory has no VRAM of its own; leave vram_mib out")
        return self


class Bandwidth(_Table):
    """Of the memory that holds the weights: VRAM where there is some, else RAM."""

    peak_gb_per_s: float | None = Field(None, gt=0, description="by data sheet")
    decode_gb_per_s: float | None = Field(
        None, gt=0, description="bytes of weights that decoding reads a second; unset: measured"
    )

    @property
    def peak_bytes_per_s(self) -> float | None:
        return None if self.peak_gb_per_s is None else self.peak_gb_per_s * _GB

    @property
    def decode_bytes_per_s(self) -> float | None:
        """Effective in decoding: tokens/s are about this over the bytes read a token."""
        return None if self.decode_gb_per_s is None else self.decode_gb_per_s * _GB


class Cpu(_Table):
    """Unset counts and an empty ``isa`` are read from the machine."""

    cores: Threads | None = None
    min_mhz: int | None = Field(None, ge=1)
    max_mhz: int | None = Field(None, ge=1)
    threads_prefill: Threads | None = None
    threads_decode: Threads | None = None
    isa: tuple[str, ...] = Field((), description="what kernels can use: avx2, dotprod, …")
    page_kib: int | None = Field(None, ge=4, description="the kernel's page size")


class ProfileGpu(_Table):
    """A GPU that an engine can use."""

    kind: Literal["cuda"]
    name: str
    compute_capability: str = Field(pattern=r"^\d+\.\d+$")


class Stage(_Table):
    """One RC stage between chip and air."""

    r_k_per_w: float = Field(gt=0, description="kelvin a watt")
    tau_s: float = Field(gt=0, description="time constant")


class Cooling(_Table):
    """Chip temperature = ambient + the sum of the stages' answers to the watts."""

    stages: tuple[Stage, ...] = Field(min_length=1)


class Thermal(_Table):
    """Where to read the temperature, and what it may be.

    ``act_c``: where edged begins to slow down; ``soft_c``, ``hard_c``: where firmware or
    driver does, first gently; ``critical_c``: where the machine switches off.
    """

    zone: str = Field(description="a thermal zone's type, or nvml")
    act_c: Celsius
    soft_c: Celsius | None = None
    hard_c: Celsius | None = None
    critical_c: Celsius | None = None
    cooling: dict[str, Cooling] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        limits = [self.act_c, self.soft_c, self.hard_c, self.critical_c]
        given = [limit for limit in limits if limit is not None]
        if given != sorted(given):
            raise ValueError("act_c, soft_c, hard_c and critical_c must not fall in this order")
        return self


class OperatingPoint(_Table):
    """What the board draws and does with this many threads; 0 threads is idle."""

    threads: int = Field(ge=0, le=1024)
    watts: float = Field(ge=0)
    decode: Share
    prefill: Share


class PowerMode(_Table):
    """A mode of the vendor's power tool; ``watts`` unset where it caps nothing."""

    name: str
    watts: float | None = Field(None, gt=0)
    decode: Share | None = None


class Engine(_Table):
    """How to build an engine for this machine, and how to set it."""

    ubatch_tokens: int = Field(ge=1, le=4096, description="prompt tokens computed at once")
    slots_max: int = Field(ge=1, le=64)
    cmake: dict[str, str] = Field(default_factory=dict, description="definitions for llama.cpp")


class Profile(_Table):
    """One kind of machine. ``name`` and ``path`` come from the file, not from its text."""

    name: str
    path: Path
    description: str = Field(min_length=1)
    min_tokens_per_s: float = Field(gt=0, description="slower models are not chosen")
    match: tuple[Match, ...] = Field((), description="any of them")
    memory: Memory
    bandwidth: Bandwidth = Bandwidth()
    cpu: Cpu = Cpu()
    gpu: ProfileGpu | None = None
    thermal: Thermal | None = Field(
        None, description="unset: the hottest zone, 5 °C below its passive trip point"
    )
    operating_points: tuple[OperatingPoint, ...] = ()
    power_modes: tuple[PowerMode, ...] = ()
    engine: Engine
