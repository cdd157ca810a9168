"""The store: a folder of models that arrived whole.

A model is ``<name>.gguf`` with its manifest ``<name>.json`` beside it. The manifest comes last,
when the weights are verified and in place, so weights without one never count. What is still
arriving lies in ``.partial/`` (``edged.models.partial``).
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from edged.errors import ConfigError, ModelFileError
from edged.models.convert import converted_path
from edged.models.layout import manifest_path, weights_path
from edged.models.whole import sync, write_whole
from edged.settings import NAME_PATTERN, describe_validation

_READ_BYTES: Final = 1 << 20
_MAX_MANIFEST_BYTES: Final = 1 << 16

Progress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""


class Manifest(BaseModel):
    """Where a model's weights came from, and what they must be."""

    # An older edged, after a rollback, must be able to read what a newer one wrote.
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(pattern=rf"^{NAME_PATTERN}$")
    source: str = Field(description="what `edged models pull` would fetch it from again")
    size_bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    sha256_from: Literal["hub", "computed"] = Field(
        description="the hub's own record, or computed here on arrival for want of one"
    )
    pulled_at: AwareDatetime
    version: str | None = Field(None, description="the source's own name for the content, an ETag")
    catalogue: str | None = Field(None, description="the entry's name, when pulled by it")
    quantisation: str | None = None


@dataclass(frozen=True)
class StoredModel:
    """One name in the store; with a ``problem``, it must not be used."""

    name: str
    path: Path
    manifest: Manifest | None
    problem: str | None


class Store:
    """The models in ``folder``, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def weights_path(self, name: str) -> Path:
        return weights_path(self.folder, name)

    def models(self) -> list[StoredModel]:
        """Every model by name, those with a problem too. Reads no weights."""
        try:
            names = {path.stem for path in self.folder.iterdir() if _is_ours(path)}
        except FileNotFoundError:
            return []
        except OSError as e:
            raise ModelFileError(f"the store {self.folder} cannot be read: {e.strerror}") from e
        return [self._look_at(name) for name in sorted(names)]

    def find(self, name: str) -> StoredModel:
        """The model called ``name``, whole or not. Raises ``ModelFileError`` without one."""
        models = {model.name: model for model in self.models()}
        if name not in models:
            raise ModelFileError(
                f"the store {self.folder} has no model {name!r}; it has: "
                f"{', '.join(models) or 'none'}; fetch one with: edged models pull",
            )
        return models[name]

    def verify(self, model: StoredModel, *, deep: bool, progress: Progress | None = None) -> None:
        """Raises ``ModelFileError`` unless the weights are what the manifest says.

        The size always, the SHA-256 when ``deep`` (reads the whole file).
        """
        now = self._look_at(model.name)
        if now.problem or now.manifest is None:
            raise ModelFileError(f"{model.path}: {now.problem}")
        if not deep:
            return
        found = sha256_of(now.path, progress)
        if found != now.manifest.sha256:
            raise ModelFileError(
                f"{now.path}: is damaged: its SHA-256 is {found} instead of "
                f"{now.manifest.sha256}; {_again(now.manifest)}",
            )

    def add(self, arrived: Path, manifest: Manifest) -> StoredModel:
        """Moves verified weights from ``arrived``, on the same filesystem, to their name.

        Whenever this is cut short, either nothing has changed or the weights lie there
        without a manifest. Raises ``OSError``.
        """
        sync(arrived)
        arrived.chmod(0o644)  # who pulls need not be who serves
        arrived.replace(self.weights_path(manifest.name))
        sync(self.folder)
        return self.adopt(manifest)

    def adopt(self, manifest: Manifest) -> StoredModel:
        """Makes verified weights, which lie in place already, count. Raises ``OSError``."""
        path = manifest_path(self.folder, manifest.name)
        write_whole(path, manifest.model_dump_json(indent=2))
        return self._look_at(manifest.name)

    def remove(self, name: str) -> None:
        """Deletes the model called ``name``. Raises ``ModelFileError`` without one."""
        model = self.find(name)
        try:
            manifest_path(self.folder, name).unlink(missing_ok=True)
            model.path.unlink(missing_ok=True)
        except OSError as e:
            raise ModelFileError(f"{model.path}: cannot be removed: {e.strerror}") from e

    def _look_at(self, name: str) -> StoredModel:
        path = self.weights_path(name)
        try:
            manifest = _read_manifest(manifest_path(self.folder, name))
        except ValueError as e:
            return StoredModel(name, path, None, str(e))
        return StoredModel(name, path, manifest, _problem(path, manifest))


def check_name(name: str) -> None:
    """Raises ``ConfigError`` unless ``name`` can be a model's in the store."""
    if not re.fullmatch(NAME_PATTERN, name) or name.startswith((".", "-")):
        raise ConfigError(
            f"{name!r} cannot be a model's name: 1 to 64 letters, digits, '_', '.' and '-' can, "
            "the first of them a letter, digit or '_'; choose one with --name",
        )


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises ``ModelFileError``."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    done = 0
    try:
        with path.open("rb", buffering=0) as file:
            total = os.fstat(file.fileno()).st_size
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                done += count
                if progress:
                    progress(done, total)
    except OSError as e:
        raise ModelFileError(f"{path}: cannot be read: {e.strerror}") from e
    return digest.hexdigest()


def remove_conversion(source: Path, state_dir: Path) -> None:
    """Deletes what ctransformers' conversion of ``source`` left in the state directory."""
    with contextlib.suppress(ModelFileError):  # no source any more: it cannot be named
        converted_path(source, state_dir).unlink(missing_ok=True)


def prune_conversions(state_dir: Path, keep: Iterable[Path]) -> list[Path]:
    """Deletes the conversions of all but the models ``keep``, as those are now.

    A conversion is named after its source's name, size and time, so that of a source which has
    changed goes, too. Returns what was deleted; raises ``OSError``.
    """
    kept = set()
    for source in keep:
        with contextlib.suppress(ModelFileError):
            kept.add(converted_path(source, state_dir))
    gone = [path for path in (state_dir / "converted").glob("*.gguf") if path not in kept]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def _is_ours(path: Path) -> bool:
    return path.suffix in {".gguf", ".json"} and not path.name.startswith(".")


def _read_manifest(path: Path) -> Manifest | None:
    """``None`` without one; ``ValueError`` says what is wrong with it."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ValueError(f"its manifest cannot be read: {e.strerror}") from e
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ValueError(f"its manifest has more than {_MAX_MANIFEST_BYTES} bytes; pull it again")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as e:
        reason = describe_validation(e)
        raise ValueError(f"its manifest is damaged ({reason}); remove it and pull again") from None
    if manifest.name != path.stem:
        raise ValueError(f"its manifest is that of {manifest.name}; remove it and pull again")
    return manifest


def _problem(path: Path, manifest: Manifest | None) -> str | None:
    if manifest is None:
        return (
            "not verified: it has no manifest; "
            f"to use it: edged models pull file:{path}; to delete it: edged models rm {path.stem}"
        )
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as e:
        return f"cannot be read: {e.strerror}"
    if size is None:
        return f"its weights are missing; {_again(manifest)}"
    if size != manifest.size_bytes:
        return (
            f"is damaged: it has {size} bytes instead of {manifest.size_bytes}; {_again(manifest)}"
        )
    return None


def _again(manifest: Manifest) -> str:
    return f"fetch it again: edged models pull {manifest.source} --name {manifest.name}"
