"""Boards that are built otherwise than the governor assumes: what it must not depend on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edged.hardware.schema import Stage
from edged.hardware.twin import SensorLoss, TwinBoard

OFF: Final = 0.3
"""By this share resistances and heat capacities are not what the profile says."""
MIDDLE_SHARE: Final = 0.4
"""Of the outer stage's resistance, in a stage of its own that is faster."""
MIDDLE_TAU_SHARE: Final = 0.25
OTHER_POWER_EXPONENT: Final = 2.2
LATE_S: Final = 3.0
NOISY_SD_C: Final = 1.0
FAN_SCALES: Final = (1.0, 0.85, 0.7, 0.6, 0.5)
LOST_AFTER_S: Final = 1200.0


def _other(board: TwinBoard, r_factor: float, c_factor: float) -> TwinBoard:
    """Three stages, another power law, a slow and noisy sensor, a fan that steps, a lost sensor."""
    *inner, outer = board.stages
    stages = (
        *inner,
        Stage(r_k_per_w=outer.r_k_per_w * MIDDLE_SHARE, tau_s=outer.tau_s * MIDDLE_TAU_SHARE),
        Stage(r_k_per_w=outer.r_k_per_w * (1 - MIDDLE_SHARE), tau_s=outer.tau_s),
    )
    return replace(
        board,
        stages=tuple(
            Stage(r_k_per_w=stage.r_k_per_w * r_factor, tau_s=stage.tau_s * r_factor * c_factor)
            for stage in stages
        ),
        power_exponent=OTHER_POWER_EXPONENT,
        sensor_lag_s=LATE_S,
        sensor_noise_sd_c=NOISY_SD_C,
        fan_scales=FAN_SCALES,
        losses=(SensorLoss("zone", LOST_AFTER_S),),
    )


STRUCTURES: Final[dict[str, Callable[[TwinBoard], TwinBoard]]] = {
    "assumed": lambda board: board,
    "worse": lambda board: _other(board, 1 + OFF, 1 - OFF),
    "better": lambda board: _other(board, 1 - OFF, 1 + OFF),
}
"""``worse`` carries away less heat than the profile says, ``better`` more."""
