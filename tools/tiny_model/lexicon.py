"""What can be done with a device, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Action:
    """One thing that can be done; `{d}` stands for the device, `{v}` for a value."""

    name: str
    answer: str
    """What the model says it is doing, e.g. `turning on {d}`."""
    verbs: tuple[str, ...]
    """Imperatives."""
    states: tuple[str, ...]
    """What the device is afterwards: `the lamp should be …`."""
    by_class: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further imperatives that only fit one class of devices."""


ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        Action(
            "turn on",
            "turning on {d}",
            (
                "turn on {d}",
                "turn {d} on",
                "turn on {d}",
                "turn {d} on",
                "switch on {d}",
                "switch {d} on",
                "power up {d}",
                "power {d} up",
                "power on {d}",
                "fire up {d}",
                "put {d} on",
                "put on {d}",
                "activate {d}",
                "enable {d}",
                "flip {d} on",
                "flip on {d}",
                "get {d} on",
                "fire {d} up",
                "power {d} on",
            ),
            ("on", "on", "turned on", "switched on", "powered up", "activated", "up and running"),
            {"light": ("light up {d}",)},
        ),
        Action(
            "turn off",
            "turning off {d}",
            (
                "turn off {d}",
                "turn {d} off",
                "turn off {d}",
                "turn {d} off",
                "switch off {d}",
                "switch {d} off",
                "shut off {d}",
                "shut {d} off",
                "kill {d}",
                "power down {d}",
                "power {d} down",
                "power off {d}",
                "shut {d} down",
                "cut {d}",
                "deactivate {d}",
                "disable {d}",
                "flip {d} off",
                "put {d} off",
                "shut down {d}",
                "power {d} off",
            ),
            ("off", "off", "turned off", "switched off", "shut off", "powered down", "shut down"),
            {"light": ("put out {d}", "turn out {d}", "put {d} out")},
        ),
        Action(
            "open",
            "opening {d}",
            ("open {d}", "open {d}", "open up {d}", "open {d} up", "pull {d} open", "get {d} open"),
            ("open", "opened", "wide open", "opened up"),
            {"blind": ("pull up {d}", "pull {d} up", "raise {d}", "roll up {d}", "roll {d} up")},
        ),
        Action(
            "close",
            "closing {d}",
            ("close {d}", "close {d}", "shut {d}", "pull {d} shut", "close up {d}", "get {d} shut"),
            ("closed", "shut", "closed up", "closed"),
            {
                "blind": (
                    "pull down {d}",
                    "pull {d} down",
                    "lower {d}",
                    "roll down {d}",
                    "let {d} down",
                    "let down {d}",
                    "roll {d} down",
                )
            },
        ),
        Action(
            "lock",
            "locking {d}",
            ("lock {d}", "lock {d}", "lock up {d}", "lock {d} up", "bolt {d}", "secure {d}"),
            ("locked", "bolted", "locked up", "secured"),
        ),
        Action(
            "unlock",
            "unlocking {d}",
            ("unlock {d}", "unlock {d}", "unbolt {d}", "get {d} unlocked"),
            ("unlocked", "unbolted"),
        ),
        Action(
            "start",
            "starting {d}",
            (
                "start {d}",
                "start {d}",
                "start up {d}",
                "start {d} up",
                "get {d} going",
                "set {d} going",
                "launch {d}",
                "let {d} run",
                "get {d} started",
                "run {d}",
            ),
            ("started", "running", "going"),
        ),
        Action(
            "stop",
            "stopping {d}",
            ("stop {d}", "stop {d}", "halt {d}", "make {d} stop", "bring {d} to a stop"),
            ("stopped", "halted"),
        ),
        Action(
            "dim",
            "dimming {d}",
            (
                "dim {d}",
                "dim {d}",
                "dim {d} down",
                "make {d} darker",
                "make {d} dimmer",
                "soften {d}",
                "dim down {d}",
                "make {d} less bright",
            ),
            ("dimmed", "darker", "dimmer", "less bright", "a bit darker"),
        ),
        Action(
            "brighten",
            "brightening {d}",
            (
                "brighten {d}",
                "brighten {d}",
                "brighten up {d}",
                "brighten {d} up",
                "make {d} brighter",
                "make {d} shine brighter",
            ),
            ("brighter", "brightened", "a bit brighter"),
        ),
        Action(
            "turn up",
            "turning up {d}",
            (
                "turn up {d}",
                "turn {d} up",
                "turn {d} up",
                "crank up {d}",
                "crank {d} up",
                "raise the level of {d}",
                "bump up {d}",
            ),
            ("turned up", "cranked up", "higher", "a bit higher"),
            {
                "media": ("make {d} louder", "make {d} louder"),
                "climate": ("make {d} warmer", "make {d} hotter"),
                "fan": ("make {d} faster", "speed up {d}", "speed {d} up"),
            },
        ),
        Action(
            "turn down",
            "turning down {d}",
            (
                "turn down {d}",
                "turn {d} down",
                "turn {d} down",
                "bring down {d}",
                "tone {d} down",
                "lower the level of {d}",
                "tone down {d}",
                "bring {d} down",
            ),
            ("turned down", "lower", "a bit lower", "toned down"),
            {
                "media": ("make {d} quieter", "make {d} quieter"),
                "climate": ("make {d} cooler", "make {d} colder"),
                "fan": ("make {d} slower", "slow down {d}", "slow {d} down"),
            },
        ),
        Action(
            "set",
            "setting {d} to {v}",
            (
                "set {d} to {v}",
                "set {d} to {v}",
                "put {d} at {v}",
                "bring {d} to {v}",
                "turn {d} to {v}",
                "adjust {d} to {v}",
                "move {d} to {v}",
                "put {d} to {v}",
                "change {d} to {v}",
                "make {d} {v}",
                "get {d} to {v}",
                "take {d} to {v}",
            ),
            ("at {v}", "set to {v}", "at {v}", "on {v}"),
        ),
    )
}

EXTRAS: dict[tuple[str, str], str] = {
    ("climate", "turn on"): "It will be warm soon.",
    ("climate", "set"): "It will take a few minutes to get there.",
    ("machine", "start"): "I hope it does a good job.",
    ("media", "turn on"): "Enjoy!",
    ("blind", "open"): "Let the light in.",
    ("door", "lock"): "It is safe now.",
    ("lock", "lock"): "It is safe now.",
}
"""A second sentence, fixed for each class and action so that greedy text stays certain."""

_GERUNDS = {
    "put": "putting", "get": "getting", "cut": "cutting", "shut": "shutting", "set": "setting",
    "let": "letting", "run": "running", "stop": "stopping", "dim": "dimming", "flip": "flipping",
}  # fmt: skip


def gerund(phrase: str) -> str:
    """`switch {d} off` → `switching {d} off`."""
    verb, _, rest = phrase.partition(" ")
    if verb in _GERUNDS:
        verb = _GERUNDS[verb]
    elif verb.endswith("e"):
        verb = verb[:-1] + "ing"
    else:
        verb += "ing"
    return f"{verb} {rest}".strip()
