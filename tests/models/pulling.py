"""What tests of pulling share: a target, and what comes of it."""

from pathlib import Path

import gguf
import pytest
from gguf_files import Shape, write_phi3

from edged.errors import PullError
from edged.models.partial import partials
from edged.models.pull import Pulled, pull
from edged.models.store import Store
from edged.models.targets import parse_target

FILE = "hf:acme/phi-GGUF/phi-q4.gguf"
MIB = 1 << 20


def of_shape(shape: Shape, folder: Path) -> bytes:
    """A model file of that shape, in F32."""
    path = write_phi3(folder / "phi.gguf", shape, quantisation=gguf.GGMLQuantizationType.F32)
    return path.read_bytes()


def fetch(store: Store, target: str = FILE, *, name: str | None = None, token: str | None = None):
    return pull(parse_target(target, token, name), store, lambda *_: None)


def refusal(store: Store, target: str = FILE, **kwargs: str) -> str:
    with pytest.raises(PullError) as caught:
        fetch(store, target, **kwargs)
    return str(caught.value)


def content(pulled: Pulled) -> bytes:
    return pulled.model.path.read_bytes()


def half_arrived(store: Store) -> list[int]:
    return [partial.arrived_bytes for partial, _ in partials(store.folder)]
