"""NVIDIA's GPUs through NVML, while they work: heat, limits, power, clock, free memory.

Each figure may be "not supported" by itself, as on a Jetson or a GPU of another generation;
it is ``None`` then. The binding is the optional package ``nvidia-ml-py``.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edged.hardware.plausible import TEMPERATURE, Plausible

ZONE: Final = "nvml"
"""What a profile calls the sensor of its GPU."""
_AGAIN_S: Final = 30.0
"""A driver that does not answer is asked again so often: it may have been loaded anew."""

# nvml.h. Not among those that slow for heat: 0x4, the power cap, under which a GPU at work is.
_SLOWED: Final = 0x08 | 0x20 | 0x40 | 0x80
"""Slowed by hardware, by software for heat, by hardware for heat, by the power brake."""
_GPU_SENSOR: Final = 0
_SHUTDOWN, _SLOWDOWN = 0, 1
_GRAPHICS_CLOCK: Final = 0
_LIMITS_C: Final = (40.0, 150.0)


@dataclass(frozen=True)
class Gpus:
    """All of a machine; of temperatures the hottest's, of watts the sum, of memory the most."""

    temperature_c: float | None = None
    passive_c: float | None = None
    """Where the driver begins to slow the GPU."""
    critical_c: float | None = None
    is_slowed: bool = False
    watts: float | None = None
    clock_mhz: float | None = None
    free_bytes: int | None = None
    faults: tuple[str, ...] = ()


@dataclass
class _Device:
    handle: Any
    plausible: Plausible
    passive_c: float | None
    critical_c: float | None
    is_lost: bool = False
    """Whether it did not answer when last asked."""


class NvmlSensors:
    """``nvml`` stands in for the module pynvml."""

    def __init__(self, nvml: Any, monotonic: Callable[[], float]) -> None:
        self._nvml = nvml
        self._monotonic = monotonic
        self._devices: list[_Device] = []
        self._asked_s = -math.inf
        self._fault: str | None = None

    def read(self) -> Gpus:
        """Never raises, and asks nothing of a GPU that has been slow to answer."""
        now_s = self._monotonic()
        if not self._devices and now_s - self._asked_s >= _AGAIN_S:
            self._asked_s = now_s
            self._open()
        if self._fault is not None:
            return Gpus(faults=(self._fault,))
        read = [self._read(device) for device in self._devices]
        if now_s - self._asked_s >= _AGAIN_S and all(each.is_lost for each in self._devices):
            self._close()  # it is opened again when next read
        return _together(read)

    def _open(self) -> None:
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError:
                self._fault = f"{ZONE}: nvidia-ml-py is missing; pip install 'edged[nvidia]'"
                return
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._fault = f"{ZONE}: the driver does not answer ({error})"
            return
        count = int(self._number("nvmlDeviceGetCount") or 0)
        handles = [self._ask("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        names = [ZONE if count == 1 else f"{ZONE} {index}" for index in range(count)]
        self._devices = [
            _Device(
                handle,
                Plausible(name, TEMPERATURE),
                self._limit_c(handle, _SLOWDOWN),
                self._limit_c(handle, _SHUTDOWN),
            )
            for name, handle in zip(names, handles, strict=True)
            if handle is not None
        ]
        self._fault = None if self._devices else f"{ZONE}: the driver knows no GPU"
        if not self._devices:
            self._close()

    def _close(self) -> None:
        self._devices = []
        self._ask("nvmlShutdown")

    def _read(self, device: _Device) -> Gpus:
        handle, plausible = device.handle, device.plausible
        began_s = self._monotonic()
        if not plausible.is_due(began_s):
            return Gpus(faults=_named(plausible.fault(began_s)))
        raw = self._number("nvmlDeviceGetTemperature", handle, _GPU_SENSOR)
        if raw is None:  # the older call is to be removed
            raw = self._number("nvmlDeviceGetTemperatureV", handle, _GPU_SENSOR)
        # Its other answers come from the same driver, so they are waited for together.
        reasons = self._number("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:
            reasons = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        milliwatts = self._number("nvmlDeviceGetPowerUsage", handle)
        clock_mhz = self._number("nvmlDeviceGetClockInfo", handle, _GRAPHICS_CLOCK)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        took_s = self._monotonic() - began_s
        device.is_lost = raw is None
        given = "does not answer" if raw is None else raw
        return Gpus(
            temperature_c=plausible.weigh(given, began_s, took_s),
            passive_c=device.passive_c,
            critical_c=device.critical_c,
            is_slowed=bool(int(reasons or 0) & _SLOWED),
            watts=None if milliwatts is None else milliwatts / 1000,
            clock_mhz=clock_mhz,
            free_bytes=None if memory is None else int(memory.free),
            faults=_named(plausible.fault(began_s)),
        )

    def _limit_c(self, handle: Any, threshold: int) -> float | None:
        celsius = self._number("nvmlDeviceGetTemperatureThreshold", handle, threshold)
        return celsius if celsius is not None and _LIMITS_C[0] < celsius <= _LIMITS_C[1] else None

    def _number(self, function: str, *arguments: Any) -> float | None:
        answer = self._ask(function, *arguments)
        return answer if isinstance(answer, int | float) and math.isfinite(answer) else None

    def _ask(self, function: str, *arguments: Any) -> Any:
        """``None`` where the driver or the binding does not know it, each by itself."""
        asked = getattr(self._nvml, function, None)
        if asked is None:
            return None
        try:
            return asked(*arguments)
        except self._nvml.NVMLError:
            return None


def _named(fault: str | None) -> tuple[str, ...]:
    return () if fault is None else (fault,)


def _together(read: list[Gpus]) -> Gpus:
    hottest = max(read, key=_heat, default=Gpus())
    watts = [each.watts for each in read if each.watts is not None]
    return Gpus(
        temperature_c=hottest.temperature_c,
        passive_c=hottest.passive_c,
        critical_c=hottest.critical_c,
        is_slowed=any(each.is_slowed for each in read),
        watts=sum(watts) if watts else None,
        clock_mhz=hottest.clock_mhz,
        free_bytes=max((each.free_bytes for each in read if each.free_bytes), default=None),
        faults=tuple(fault for each in read for fault in each.faults),
    )


def _heat(gpu: Gpus) -> float:
    return -math.inf if gpu.temperature_c is None else gpu.temperature_c
