"""Which devices there are in which rooms, and which actions make sense for each."""

from __future__ import annotations

from dataclasses import dataclass

from tools.tiny_model.phrases import lines


@dataclass(frozen=True)
class Device:
    """A thing in a room; `name` is how the model calls it, `said` how people do."""

    name: str
    kind: str
    actions: tuple[str, ...]
    unit: str = ""
    plural: bool = False
    said: tuple[str, ...] = ()


_LIGHT = ("turn on", "turn off", "turn on", "turn off", "dim", "brighten", "set")
_POWER = ("turn on", "turn off")
_LEVEL = (*_POWER, "turn up", "turn down", "set")
_COVER = ("open", "close")
_MACHINE = (*_POWER, "start", "stop")

DEVICES: tuple[Device, ...] = (
    Device("lamp", "light", _LIGHT, "percent"),
    Device("light", "light", _LIGHT, "percent"),
    Device("lights", "light", _LIGHT, "percent", plural=True),
    Device("ceiling light", "light", _LIGHT, "percent"),
    Device("desk lamp", "light", _LIGHT, "percent"),
    Device("floor lamp", "light", _LIGHT, "percent"),
    Device("reading lamp", "light", _LIGHT, "percent"),
    Device("bedside lamp", "light", _LIGHT, "percent"),
    Device("night light", "light", _LIGHT, "percent"),
    Device("heater", "climate", _LEVEL, "degrees"),
    Device("heating", "climate", _LEVEL, "degrees"),
    Device("radiator", "climate", _LEVEL, "degrees"),
    Device("thermostat", "climate", ("turn up", "turn down", "set", "set"), "degrees"),
    Device("air conditioner", "climate", _LEVEL, "degrees", said=("AC", "air con")),
    Device("fan", "fan", _LEVEL, "percent"),
    Device("ceiling fan", "fan", _LEVEL, "percent"),
    Device("air purifier", "plug", _POWER),
    Device("humidifier", "plug", _POWER),
    Device("TV", "media", _LEVEL, "percent", said=("tv", "television")),
    Device("radio", "media", _LEVEL, "percent"),
    Device("speaker", "media", _LEVEL, "percent"),
    Device("stereo", "media", _LEVEL, "percent"),
    Device("projector", "plug", _POWER),
    Device("socket", "plug", _POWER),
    Device("blinds", "blind", (*_COVER, *_COVER, "set"), "percent", plural=True),
    Device("shutters", "blind", (*_COVER, *_COVER, "set"), "percent", plural=True),
    Device("curtains", "cover", (*_COVER, *_COVER, "set"), "percent", plural=True),
    Device("window", "cover", _COVER),
    Device("skylight", "cover", _COVER),
    Device("garage door", "cover", (*_COVER, "lock", "unlock")),
    Device("door", "door", ("lock", "unlock", *_COVER)),
    Device("door lock", "lock", ("lock", "unlock")),
    Device("back door", "door", ("lock", "unlock", *_COVER)),
    Device("front door", "door", ("lock", "unlock", *_COVER)),
    Device("coffee machine", "machine", _MACHINE, said=("coffee maker",)),
    Device("washing machine", "machine", _MACHINE, said=("washer",)),
    Device("dishwasher", "machine", _MACHINE),
    Device("vacuum", "machine", _MACHINE, said=("vacuum cleaner", "robot vacuum")),
    Device("sprinkler", "machine", _MACHINE),
)
DEVICE: dict[str, Device] = {device.name: device for device in DEVICES}

ROOMS = lines("rooms")
# A few sentences name another place, so that the model learns to copy and not only to choose.
RARE_ROOMS = lines("rare_rooms")
