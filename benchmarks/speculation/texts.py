"""Recorded exchanges: what a model was asked, and what it said, word by word.

On a shape model, whose weights are random, the recorded answer stands in for the sampling; each
word or mark counts as one token, as in a large vocabulary.
"""

import json
import re
from dataclasses import dataclass

_WORD = re.compile(r"\s?\w+|\s?[^\w\s]|\s+")
FIRST_TOKEN = 1000
"""Ids below are special, or bytes."""


@dataclass(frozen=True)
class Exchange:
    """A prompt and its recorded answer, as token ids."""

    name: str
    prompt: list[int]
    answer: list[int]


def exchanges() -> list[Exchange]:
    """The most repetitive first."""
    words: dict[str, int] = {}

    def ids(text: str) -> list[int]:
        return [words.setdefault(word, FIRST_TOKEN + len(words)) for word in _WORD.findall(text)]

    pairs = {
        "a state, two values changed": (
            f"Turn the kitchen light off and set the bath to 23 degrees: {_state(False, 21)}",
            _state(True, 23),
        ),
        "a list, sorted into another": (f"Which of these are on? {_devices()}", _on()),
        "prose about the prompt": (_QUESTION, _ANSWER),
        "prose of its own": ("Tell me something.", _PROSE),
    }
    return [Exchange(name, ids(asked), ids(said)) for name, (asked, said) in pairs.items()]


def _state(off: bool, bath: int) -> str:
    rooms = ["kitchen", "bath", "hall", "bedroom", "office", "garage"]
    return json.dumps(
        [
            {
                "room": room,
                "light": {"on": not (off and room == "kitchen"), "brightness": 40 + 7 * at},
                "heating": {"target_c": bath if room == "bath" else 20, "mode": "auto"},
            }
            for at, room in enumerate(rooms)
        ]
    )


_NAMES = [f"{room} {thing}" for room in ("kitchen", "hall", "office") for thing in
          ("ceiling lamp", "desk lamp", "fan", "radio", "heater")]  # fmt: skip


def _devices() -> str:
    return "; ".join(f"{name}: {'on' if at % 3 else 'off'}" for at, name in enumerate(_NAMES))


def _on() -> str:
    return "These are on: " + ", ".join(name for at, name in enumerate(_NAMES) if at % 3) + "."


_QUESTION = (
    "The boiler has started to knock when the heating comes on in the morning. The pressure reads "
    "1.1 bar when it is cold and 2.4 bar when it is hot. What could it be, and what can I check "
    "before I call the plumber?"
)
_ANSWER = (
    "A boiler that knocks when the heating comes on most often has air or limescale in it. Check "
    "the pressure first: 1.1 bar when it is cold is fine, but 2.4 bar when it is hot is a wide "
    "swing, which points to an expansion vessel that has lost its charge. Then bleed the "
    "radiators, beginning with the lowest, and see whether the knocking gets less. If it does not, "
    "listen near the heat exchanger: a sound like a kettle means limescale. Before you call the "
    "plumber, write down both pressures and at which temperature the knocking begins, since that "
    "tells a plumber more than the sound does."
)
_PROSE = (
    "Lighthouses were once tended by keepers who trimmed wicks every few hours, wound the "
    "clockwork that turned the lens, and logged each passing ship. A first-order Fresnel lens "
    "could throw the flame of an oil lamp past the horizon, because hundreds of glass prisms "
    "bent stray rays "
    "into one flat beam. Storms broke windows, gulls struck panes at night, and supplies arrived "
    "late; still, most stations ran for decades without missing an evening. Automation ended the "
    "craft within a generation: first acetylene valves opened by cold, later photocells, finally "
    "solar panels with diodes no larger than a thumbnail."
)
