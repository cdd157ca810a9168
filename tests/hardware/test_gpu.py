"""GPUs through a stand-in for pynvml, for no GPU can be had here."""

from types import SimpleNamespace
from typing import Any

import pytest

from edged.hardware.gpu import Gpu, gpus


class NVMLError(Exception):
    pass


class Nvml:
    """The few calls of pynvml that are used; ``missing`` ones are not supported."""

    NVMLError = NVMLError

    def __init__(self, *missing: str, count: int = 1, text: type = str) -> None:
        self.missing, self.count, self.text = missing, count, text
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "missing"):

            def refuse(*arguments: object) -> None:
                raise NVMLError("Not Supported")

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802 (the library's names)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index + 1

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        name = f"GPU {handle}"
        return name.encode() if self.text is bytes else name

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=12 * 2**30, free=11 * 2**30, used=2**30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return (8, 6)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.54.14"


def test_a_gpu_is_described() -> None:
    assert gpus(Nvml()) == (Gpu("GPU 1", 12 * 2**30, 11 * 2**30, "8.6", "550.54.14"),)


def test_a_binding_that_speaks_bytes_is_understood() -> None:
    assert [gpu.name for gpu in gpus(Nvml(count=2, text=bytes))] == ["GPU 1", "GPU 2"]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("nvmlDeviceGetMemoryInfo", Gpu("GPU 1", None, None, "8.6", "550.54.14")),
        (
            "nvmlDeviceGetCudaComputeCapability",
            Gpu("GPU 1", 12 * 2**30, 11 * 2**30, None, "550.54.14"),
        ),
        ("nvmlDeviceGetName", Gpu("unknown GPU", 12 * 2**30, 11 * 2**30, "8.6", "550.54.14")),
        ("nvmlSystemGetDriverVersion", Gpu("GPU 1", 12 * 2**30, 11 * 2**30, "8.6", None)),
    ],
)
def test_what_is_not_supported_is_unknown_and_the_rest_is_told(missing: str, expected: Gpu) -> None:
    assert gpus(Nvml(missing)) == (expected,)


@pytest.mark.parametrize(
    "missing", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"]
)
def test_without_a_driver_or_a_device_there_is_none(missing: str) -> None:
    assert gpus(Nvml(missing)) == ()


def test_the_library_is_closed_again() -> None:
    nvml = Nvml("nvmlDeviceGetMemoryInfo")

    gpus(nvml)

    assert nvml.open == 0


def test_without_the_binding_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)

    assert gpus() == ()


def test_the_stand_in_has_the_names_of_the_binding() -> None:
    pynvml = pytest.importorskip("pynvml")

    ours = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert [name for name in ours if not callable(getattr(pynvml, name, None))] == []
    assert issubclass(pynvml.NVMLError, Exception)
