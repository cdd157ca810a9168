"""Fetches a model into the store: what arrives is kept over any kill, and counts when verified.

In order: ask the source what it has; see whether the store has it; check the free disk; fetch
what is missing; compare size and SHA-256; check the header; give it its name and its manifest.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edged.errors import ModelFileError, PullError
from edged.models.gguf import check_model, read_header
from edged.models.partial import Partial, Record, boot_id, exclusive, partial_of
from edged.models.sources import FileSource, Source
from edged.models.store import Manifest, Store, StoredModel, sha256_of
from edged.models.targets import Target
from edged.models.transfer import Interrupted, Offer, Reply

RESERVE_BYTES: Final = 64 << 20
"""Left free on the disk, for who else writes there."""

_TRIES: Final = 5
_PAUSE_S: Final = 1.0  # before the second try; doubles
Report = Callable[[str, int, int | None], None]
"""Is told what is being done, how many bytes of it, and of how many."""


@dataclass(frozen=True)
class Pulled:
    """``was_there``: nothing was fetched, what the store has was verified."""

    model: StoredModel
    was_there: bool


def pull(target: Target, store: Store, report: Report) -> Pulled:
    """Makes sure that the store has ``target``, whole; goes on where another pull stopped.

    Raises ``PullError``, or ``ModelFileError`` for what is no model that edged serves.
    """
    with exclusive(store.folder, f"edged models pull {target.source.target}"):
        offer = _ask(target.source, report)
        partial = partial_of(store.folder, target.source.target)
        try:
            if there := _what_is_there(target, store, offer, partial, report):
                partial.drop()
                return Pulled(there, was_there=True)
            offer = _receive(target, store, offer, partial, report)
            sha256 = _check(partial, offer, report)
            partial.write(_record(target, offer, sha256))
            model = store.add(partial.content, _manifest(target, offer, partial.content, sha256))
            partial.drop()
        except OSError as e:
            raise PullError(f"the store {store.folder} cannot be written: {e.strerror}") from e
    return Pulled(model, was_there=False)


def _ask(source: Source, report: Report) -> Offer:
    for seconds in _pauses():
        try:
            return source.offer()
        except Interrupted:
            report(f"trying again in {seconds:g} s", 0, None)
            time.sleep(seconds)
    return source.offer()


def _pauses() -> Iterator[float]:
    yield from (_PAUSE_S * 2**number for number in range(_TRIES - 1))


def _what_is_there(
    target: Target, store: Store, offer: Offer, partial: Partial, report: Report
) -> StoredModel | None:
    """The store's model of that name when it is this content and whole, ``None`` to fetch it.

    Raises ``PullError`` where another has the name.
    """
    path = store.weights_path(target.name)
    manifest = next((m.manifest for m in store.models() if m.name == target.name), None)
    if manifest is None and not path.exists():
        return None
    if manifest is None:
        return _adopted(target, store, offer, partial, report)
    same = (
        offer.sha256 == manifest.sha256
        if offer.sha256
        else (offer.source, offer.version) == (manifest.source, manifest.version)
    )
    if not same:
        raise _taken(target, f"from {manifest.source}")
    model = store.find(target.name)
    try:
        store.verify(model, deep=True, progress=_stage(report, "checking what is there"))
    except ModelFileError:
        return None  # fetched again, it takes the damaged one's place
    return model


def _adopted(
    target: Target, store: Store, offer: Offer, partial: Partial, report: Report
) -> StoredModel:
    """Weights without a manifest: put there by hand, or by a pull that was killed at the end."""
    path = store.weights_path(target.name)
    record = partial.record
    wanted = offer.sha256 or (record.sha256 if record else None)
    found = sha256_of(path, _stage(report, "checking what is there"))
    is_itself = isinstance(target.source, FileSource) and path.samefile(target.source.path)
    if found != wanted and (wanted or not is_itself):
        raise _taken(target, "without a manifest")
    check_model(read_header(path))
    return store.adopt(_manifest(target, offer, path, found))


def _taken(target: Target, what: str) -> PullError:
    return PullError(
        f"the store has another {target.name}, {what}; choose another name with --name, or "
        f"delete that one first: edged models rm {target.name}",
    )


def _receive(target: Target, store: Store, offer: Offer, partial: Partial, report: Report) -> Offer:
    """Fetches until all is there, from what is there already.

    Answers what it has fetched, which is not ``offer`` where the source has changed meanwhile.
    """
    if not _goes_on(partial, offer):
        partial.drop()
    partial.write(_record(target, offer))
    furthest, pauses = partial.arrived_bytes, _pauses()
    while offer.size_bytes is None or partial.arrived_bytes < offer.size_bytes:
        _check_space(store, offer, partial)
        try:
            with target.source.open(offer, partial.arrived_bytes) as reply:
                size = offer.size_bytes if reply.size_bytes is None else reply.size_bytes
                now = replace(offer, version=reply.version, size_bytes=size)
                if now != offer:  # the first that is known of it, or another content
                    offer = now
                    partial.write(_record(target, offer))
                    if reply.start_bytes:
                        partial.content.unlink()
                        continue
                    _check_space(store, offer, partial)
                _append(partial, reply, offer, report)
        except Interrupted as e:
            if partial.arrived_bytes > furthest:
                furthest, pauses = partial.arrived_bytes, _pauses()
            seconds = next(pauses, None)
            if seconds is None:
                raise PullError(f"{e}; {_kept(partial, offer.size_bytes)}") from None
            report(f"trying again in {seconds:g} s", partial.arrived_bytes, offer.size_bytes)
            time.sleep(seconds)
            continue
        if offer.size_bytes is None:
            break  # the source did not say; the header will show whether it is all
    return offer


def _record(target: Target, offer: Offer, sha256: str | None = None) -> Record:
    return Record(
        name=target.name,
        source=target.source.target,
        version=offer.version,
        size_bytes=offer.size_bytes,
        boot_id=boot_id(),
        sha256=sha256,
    )


def _goes_on(partial: Partial, offer: Offer) -> bool:
    """Whether what is here is the beginning of what is offered."""
    before = partial.record
    if before is None or offer.version is None or before.version != offer.version:
        return False
    if offer.size_bytes is not None and partial.arrived_bytes > offer.size_bytes:
        return False
    # What was not synced before a power cut shows in the checksum, where there is one.
    return offer.sha256 is not None or before.boot_id == boot_id()


def _append(partial: Partial, reply: Reply, offer: Offer, report: Report) -> None:
    arrived, size = reply.start_bytes, offer.size_bytes
    # Unbuffered: what has arrived survives this process.
    with partial.content.open("ab", buffering=0) as out:
        out.truncate(arrived)
        for chunk in reply.chunks:
            arrived += len(chunk)
            if size is not None and arrived > size:
                raise PullError(f"{offer.source}: sends more than the {size} bytes that it has")
            try:
                _write_all(out.fileno(), chunk)
            except OSError as e:
                if e.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                raise PullError(
                    f"{offer.source}: the disk of {partial.content.parent} is full; make room; "
                    f"{_kept(partial, size)}",
                ) from None
            report("pulling", arrived, size)
    if size is not None and arrived < size:
        raise Interrupted(f"{offer.source}: the connection ended after {arrived} of {size} bytes")


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def stopped(target: Target, store: Store) -> str:
    """What a pull that was stopped leaves behind, in words."""
    partial = partial_of(store.folder, target.source.target)
    record = partial.record
    return _kept(partial, record.size_bytes if record else None)


def _kept(partial: Partial, size_bytes: int | None) -> str:
    total = "" if size_bytes is None else f" of {size_bytes}"
    return f"{partial.arrived_bytes}{total} bytes are kept; the same command goes on from there"


def _check_space(store: Store, offer: Offer, partial: Partial) -> None:
    if offer.size_bytes is None:
        return
    needed = offer.size_bytes - partial.arrived_bytes + RESERVE_BYTES
    available = shutil.disk_usage(store.folder).free
    if available < needed:
        raise PullError(
            f"{offer.source}: needs {needed} more bytes on the disk of {store.folder} "
            f"({RESERVE_BYTES} of them stay free), but {available} are available; delete models "
            "(edged models list, edged models rm), or set model.store to a larger disk",
        )


def _check(partial: Partial, offer: Offer, report: Report) -> str:
    """The SHA-256 of what has arrived, when that is a whole model as offered."""
    found = sha256_of(partial.content, _stage(report, "checking"))
    if offer.sha256 and found != offer.sha256:
        partial.drop()
        raise PullError(
            f"{offer.source}: what arrived is damaged: its SHA-256 is {found} instead of "
            f"{offer.sha256}; it was deleted, pull it again",
        )
    try:
        check_model(read_header(partial.content))
    except ModelFileError as e:
        partial.drop()
        reason = str(e).removeprefix(f"{partial.content}: ")
        raise ModelFileError(f"{offer.source}: cannot be served: {reason}") from None
    return found


def _manifest(target: Target, offer: Offer, content: Path, sha256: str) -> Manifest:
    return Manifest(
        name=target.name,
        source=offer.source,
        size_bytes=content.stat().st_size,
        sha256=sha256,
        sha256_from=offer.sha256_from,
        pulled_at=datetime.now(UTC).replace(microsecond=0),
        version=offer.version,
        catalogue=target.catalogue,
        quantisation=read_header(content).quantisation,
    )


def _stage(report: Report, what: str) -> Callable[[int, int], None]:
    return lambda done, total: report(what, done, total)
