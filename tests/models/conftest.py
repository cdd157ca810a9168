from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gguf_files import Shape, write_phi3
from hub_server import Hub, serving
from huggingface_hub import constants
from pulling import of_shape

import edged.models.pull
from edged.models.store import Store


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phi3(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write_(content: bytes) -> Path:
        path = tmp_path / "broken.gguf"
        path.write_bytes(content)
        return path

    return write_


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 8 MB."""
    shape = Shape(hidden=512, heads=4, kv_heads=4, feed_forward=512, layers=1)
    return of_shape(shape, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def hub(weights: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as hub:
        hub.put("acme/phi-GGUF/phi-q4.gguf", weights)
        hub.plain["/models/phi.gguf"] = weights
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(edged.models.pull, "_PAUSE_S", 0.001)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub
