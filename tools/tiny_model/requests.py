"""Requests to a device, composed of a frame, a device, a room and an action."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from tools.tiny_model.devices import DEVICES, RARE_ROOMS, ROOMS, Device
from tools.tiny_model.lexicon import ACTIONS, EXTRAS, gerund
from tools.tiny_model.off_topic import made_up, remark
from tools.tiny_model.phrases import lines, words

_NAMED_ROOM = (
    ("the {d} in the {r}",) * 9
    + ("the {r} {d}",) * 9
    + ("{r} {d}",) * 2
    + ("my {d} in the {r}", "our {d} in the {r}", "my {r} {d}", "our {r} {d}", "the {r}'s {d}")
    + ("the {d} of the {r}", "that {d} in the {r}", "the {d} over in the {r}", "the {d} in {r}")
    + ("the {d} inside the {r}", "the {d} that is in the {r}", "the {d} we have in the {r}")
    + ("the {d} from the {r}", "the {d} for the {r}", "the {d} there in the {r}")
)
_POLITE = re.compile(r"\b(please|could|would|can|kindly|mind|thanks|thank|favour)\b", re.IGNORECASE)
_ONLY_IN = {
    "garage door": ("garage", "cellar", "basement", "workshop", "carport"),
    "sprinkler": ("garden", "conservatory", "greenhouse", "courtyard"),
}
_RARE_ROOM_SHARE = 0.12
_INVENTED_ROOM_SHARE = 0.12


@dataclass(frozen=True)
class Request:
    """What is wanted, apart from how it is said. `room` is empty where none is named."""

    device: Device
    room: str
    action: str
    value: str = ""

    @property
    def thing(self) -> str:
        """The device as the answer calls it."""
        return (
            f"the {self.device.name} in the {self.room}" if self.room else f"the {self.device.name}"
        )

    def answer(self, prompt: str) -> str:
        """The one right answer to `prompt`, which must say this request."""
        opening = "Of course" if _POLITE.search(prompt) else "Okay"
        doing = ACTIONS[self.action].answer.replace("{d}", self.thing).replace("{v}", self.value)
        extra = EXTRAS.get((self.device.kind, self.action), "")
        return f"{opening}, I am {doing}. {extra}".strip()


def pick_request(rng: random.Random, *, invented_rooms: bool = False) -> Request:
    """A sensible thing to ask for; invented rooms (`whale room`) teach copying."""
    device = rng.choice(DEVICES)
    action = rng.choice(device.actions)
    room = rng.choice(RARE_ROOMS) if rng.random() < _RARE_ROOM_SHARE else rng.choice(ROOMS)
    if invented_rooms and rng.random() < _INVENTED_ROOM_SHARE:
        room = _invented_room(rng)
    if device.name in _ONLY_IN:
        room = rng.choice(_ONLY_IN[device.name])
    if (device.name, room) == ("door", "garage"):
        # `the garage door` is a device of its own.
        room = "hall"
    return Request(device, room, action, pick_value(device, rng) if action == "set" else "")


def _invented_room(rng: random.Random) -> str:
    name = made_up(rng) if rng.random() < 0.15 else rng.choice(words("nouns"))
    return name + rng.choice(("", "", " room", " room", " house", " hall", " corner"))


def pick_value(device: Device, rng: random.Random) -> str:
    """A number with its unit, as the answer says it."""
    if device.unit == "degrees":
        return f"{rng.randint(5, 32)} degrees"
    number = rng.randint(1, 100) if rng.random() < 0.5 else 5 * rng.randint(1, 20)
    return f"{number} percent"


def fill(frame: str, request: Request, rng: random.Random) -> str:
    """Say `request` in the words of `frame`."""
    device, action = request.device, ACTIONS[request.action]
    said = rng.choice((device.name, *device.said)) if device.said else device.name
    verbs = (*action.verbs, *action.by_class.get(device.kind, ()) * 2)
    verb = rng.choice(verbs)
    after_verb = rng.choice([v for v in verbs if v.split()[1] == "{d}"])
    value = request.value
    if value and rng.random() < 0.25:
        value = value.replace(" percent", "%").replace(" degrees", "°")
    it = "them" if device.plural else "it"
    full = _named(said, request.room, rng)
    plain = f"the {said}"
    parts = {
        "{do}": verb.replace("{d}", full),
        "{doing}": gerund(verb).replace("{d}", full),
        "{do_it}": after_verb.replace("{d}", it),
        "{do_the}": verb.replace("{d}", plain),
        "{doing_the}": gerund(verb).replace("{d}", plain),
        "{state}": rng.choice(action.states),
        "{np}": full,
        "{d}": said,
        "{r}": request.room,
        "{be}": "are" if device.plural else "is",
        "{has}": "have" if device.plural else "has",
        "{needs}": "need" if device.plural else "needs",
        "{it}": it,
    }
    text = frame
    for slot, part in parts.items():
        text = text.replace(slot, part)
    if device.plural:
        text = text.replace("there is a ", "there are ")
    return text.replace("{v}", value)


def _named(said: str, room: str, rng: random.Random) -> str:
    if not room:
        return f"the {said}"
    pattern = rng.choice(_NAMED_ROOM)
    # `the garage garage door` is nobody's English.
    if set(said.split()) & set(room.split()):
        pattern = "the {d} in the {r}"
    return pattern.replace("{d}", said).replace("{r}", room)


def decorate(text: str, rng: random.Random, *, share: float = 0.45) -> str:
    """Perhaps an opener, a reason, a closer or a remark around the sentence."""
    if rng.random() > share:
        return text
    # A remark has nothing to do with the request, which is to be found beside it.
    parts = {
        "{opener}": rng.choice(lines("openers")),
        "{closer}": rng.choice(lines("closers")),
        "{reason}": rng.choice(lines("reasons")),
        "{speaker}": rng.choice(lines("speakers")),
        "{wish}": rng.choice(lines("wishes")),
        "{remark}": remark(rng),
        "{t}": text,
    }
    decorated = rng.choice(lines("decorations"))
    for slot, part in parts.items():
        decorated = decorated.replace(slot, part)
    return decorated


def write_as_people_do(text: str, rng: random.Random, *, question: bool = False) -> str:
    """Capitals, full stops and slips, in the mix that keyboards produce."""
    roll = rng.random()
    if roll < 0.6:
        text = text[:1].upper() + text[1:]
    elif roll < 0.63:
        text = text.upper()
    elif roll < 0.67:
        text = text.lower()
    if rng.random() < 0.05:
        text = _slip(text, rng)
    if text[-1:].isalnum():
        text += rng.choice(("?", "?", "", ".")) if question else rng.choice((".", ".", "", "", "!"))
    return text


def _slip(text: str, rng: random.Random) -> str:
    """One letter lost, doubled or swapped with the next."""
    if len(text) < 8:
        return text
    i = rng.randrange(1, len(text) - 2)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:i] + text[i + 1 :]
    if kind == 1:
        return text[:i] + text[i] + text[i:]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
