"""What counts as a model of the store, and what is said of all else."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gguf_files import write_phi3

from edged.errors import ConfigError, ModelFileError
from edged.models.convert import converted_path, ensure_converted
from edged.models.store import (
    Manifest,
    Store,
    check_name,
    prune_conversions,
    remove_conversion,
)
from edged.settings import default_store

WEIGHTS = b"any bytes will do: the store reads no header"


def put(store: Store, name: str = "phi", weights: bytes = WEIGHTS) -> Manifest:
    arrived = store.folder / ".partial" / "x.gguf"
    arrived.parent.mkdir(parents=True, exist_ok=True)
    arrived.write_bytes(weights)
    manifest = Manifest(
        name=name,
        source="hf:acme/phi-GGUF/phi.gguf@c0ffee",
        size_bytes=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        sha256_from="hub",
        pulled_at=datetime(2025, 1, 2, tzinfo=UTC),
    )
    store.add(arrived, manifest)
    return manifest


def problem(store: Store, name: str = "phi") -> str:
    return store.find(name).problem or ""


def refusal(store: Store, *, deep: bool = True) -> str:
    with pytest.raises(ModelFileError) as caught:
        store.verify(store.find("phi"), deep=deep)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        (
            {"CACHE_DIRECTORY": "/var/cache/edged:/b", "XDG_CACHE_HOME": "/c"},
            "/var/cache/edged/models",
        ),
        ({"XDG_CACHE_HOME": "/c"}, "/c/edged/models"),
        ({"HOME": "/home/jo"}, "/home/jo/.cache/edged/models"),
    ],
)
def test_the_store_lies_where_systemd_or_the_users_cache_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert default_store() == Path(folder)


def test_a_store_that_does_not_exist_yet_is_empty(store: Store) -> None:
    assert store.models() == []


def test_a_model_that_was_added_is_found_with_its_manifest(store: Store) -> None:
    manifest = put(store)
    model = store.find("phi")

    assert (model.manifest, model.problem) == (manifest, None)
    assert model.path.read_bytes() == WEIGHTS
    store.verify(model, deep=True)


def test_models_are_listed_by_name(store: Store) -> None:
    put(store, "b")
    put(store, "a")

    assert [model.name for model in store.models()] == ["a", "b"]


def test_who_serves_can_read_what_another_pulled(store: Store) -> None:
    before = os.umask(0o077)
    try:
        put(store)
    finally:
        os.umask(before)

    for name in ("phi.gguf", "phi.json"):
        assert (store.folder / name).stat().st_mode & 0o777 == 0o644


def test_a_name_that_is_not_there_lists_those_that_are(store: Store) -> None:
    put(store, "phi-4")

    with pytest.raises(ModelFileError, match="it has: phi-4; fetch one"):
        store.find("phi-5")


def test_weights_without_a_manifest_do_not_count(store: Store) -> None:
    put(store)
    (store.folder / "phi.json").unlink()

    assert f"edged models pull file:{store.folder}/phi.gguf" in problem(store)
    assert "no manifest" in refusal(store, deep=False)


def test_a_manifest_without_weights_says_where_they_are_from(store: Store) -> None:
    put(store)
    (store.folder / "phi.gguf").unlink()

    assert "weights are missing" in problem(store)
    assert "edged models pull hf:acme/phi-GGUF/phi.gguf@c0ffee --name phi" in problem(store)


def test_a_wrong_size_is_found_without_reading_the_weights(store: Store) -> None:
    put(store)
    (store.folder / "phi.gguf").write_bytes(WEIGHTS[:-1])

    assert f"{len(WEIGHTS) - 1} bytes instead of {len(WEIGHTS)}" in problem(store)
    assert f"{len(WEIGHTS) - 1} bytes instead" in refusal(store, deep=False)


def test_a_flipped_bit_is_found_by_the_checksum_alone(store: Store) -> None:
    put(store)
    damaged = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    (store.folder / "phi.gguf").write_bytes(damaged)
    store.verify(store.find("phi"), deep=False)

    assert hashlib.sha256(damaged).hexdigest() in refusal(store)
    assert hashlib.sha256(WEIGHTS).hexdigest() in refusal(store)


def test_verifying_tells_how_far_it_is(store: Store) -> None:
    weights = bytes(5 << 20)
    put(store, weights=weights)
    told: list[tuple[int, int]] = []
    store.verify(
        store.find("phi"), deep=True, progress=lambda done, total: told.append((done, total))
    )

    assert told[-1] == (len(weights), len(weights))
    assert len(told) > 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "\x00",
        '{"name": "phi"}',
        json.dumps({"name": "phi", "pad": "x" * 100_000}),
    ],
)
def test_a_broken_manifest_is_a_problem_of_one_model(store: Store, text: str) -> None:
    put(store, "other")
    put(store)
    (store.folder / "phi.json").write_text(text)

    assert "manifest" in problem(store)
    assert problem(store, "other") == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", "abc"),
        ("size_bytes", 0),
        ("sha256_from", "hearsay"),
        ("name", "../phi"),
        ("pulled_at", "2025-01-02T00:00:00"),
    ],
)
def test_a_manifest_that_says_nonsense_is_damaged(store: Store, key: str, value: object) -> None:
    manifest = json.loads(put(store).model_dump_json()) | {key: value}
    (store.folder / "phi.json").write_text(json.dumps(manifest))

    assert f"damaged ({key}:" in problem(store)


def test_a_manifest_of_another_name_is_no_proof(store: Store) -> None:
    put(store)
    (store.folder / "phi.json").rename(store.folder / "copy.json")
    (store.folder / "phi.gguf").rename(store.folder / "copy.gguf")

    assert "is that of phi" in problem(store, "copy")


def test_a_manifest_of_a_newer_edged_is_understood(store: Store) -> None:
    manifest = json.loads(put(store).model_dump_json()) | {"added_later": 1}
    (store.folder / "phi.json").write_text(json.dumps(manifest))

    assert problem(store) == ""


def test_what_is_no_file_is_a_problem(store: Store) -> None:
    put(store)
    (store.folder / "phi.gguf").unlink()
    (store.folder / "phi.gguf").mkdir()

    assert "weights are missing" in problem(store)


@pytest.mark.parametrize("files", [("phi.gguf", "phi.json"), ("phi.gguf",), ("phi.json",)])
def test_whole_or_broken_a_model_can_be_removed(store: Store, files: tuple[str, ...]) -> None:
    put(store)
    for name in {"phi.gguf", "phi.json"} - {*files}:
        (store.folder / name).unlink()
    store.remove("phi")

    assert store.models() == []
    assert [path.name for path in store.folder.iterdir()] == [".partial"]


@pytest.mark.parametrize("name", ["..", "../phi", ".phi", "-y", "a/b", "", "x" * 65, "phi 4", "ä"])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a model's name"):
        check_name(name)


def test_a_removed_model_takes_its_conversion_with_it(tmp_path: Path) -> None:
    source = write_phi3(tmp_path / "phi.gguf")
    conversion = ensure_converted(source, tmp_path)
    remove_conversion(source, tmp_path)

    assert not conversion.exists()


def test_conversions_of_sources_that_are_gone_or_changed_are_pruned(tmp_path: Path) -> None:
    sources = [write_phi3(tmp_path / f"{name}.gguf") for name in ("kept", "gone", "changed")]
    kept, gone, changed = (ensure_converted(source, tmp_path) for source in sources)
    sources[1].unlink()
    os.utime(sources[2], (1, 1))

    assert {*prune_conversions(tmp_path, sources)} == {gone, changed}
    assert [*kept.parent.glob("*.gguf")] == [kept] == [converted_path(sources[0], tmp_path)]


def test_without_conversions_nothing_is_pruned(tmp_path: Path) -> None:
    assert prune_conversions(tmp_path, []) == []


def test_the_store_carries_no_client_for_the_hub() -> None:
    code = "import edged.models.store, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert not {*run.stdout.split()} & {"huggingface_hub", "httpx2", "rich", "numpy"}
