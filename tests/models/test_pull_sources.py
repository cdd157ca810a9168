"""Pulling from any web server and from files, and the names that may be given."""

import hashlib
import os
from pathlib import Path

import pytest
from hub_server import Hub
from pulling import FILE, MIB, content, fetch, half_arrived, refusal

from edged.errors import ConfigError, ModelFileError
from edged.models.sources import UrlSource
from edged.models.store import Store
from edged.models.targets import parse_target

# Any web server


def test_a_model_from_any_server_gets_a_checksum_that_was_computed(
    hub: Hub, store: Store, weights: bytes
) -> None:
    manifest = fetch(store, f"{hub.url}/models/phi.gguf").model.manifest

    assert manifest is not None
    assert (manifest.name, manifest.sha256_from) == ("phi", "computed")
    assert manifest.sha256 == hashlib.sha256(weights).hexdigest()


def test_a_second_pull_of_the_same_url_fetches_nothing(hub: Hub, store: Store) -> None:
    fetch(store, f"{hub.url}/models/phi.gguf")
    hub.requests.clear()

    assert fetch(store, f"{hub.url}/models/phi.gguf").was_there
    assert hub.bodies() == []


def test_a_cut_download_of_a_url_is_resumed(hub: Hub, store: Store, weights: bytes) -> None:
    hub.cuts = [MIB]

    assert content(fetch(store, f"{hub.url}/models/phi.gguf")) == weights
    assert [r.range for r in hub.bodies()] == [None, f"bytes={MIB}-"]


def test_a_file_that_changes_while_it_is_pulled_is_not_put_together_from_both(
    hub: Hub, store: Store, weights: bytes
) -> None:
    changed = weights[: 2 * MIB] + bytes([weights[2 * MIB] ^ 1]) + weights[2 * MIB + 1 :]
    hub.cuts = [MIB]
    hub.on_sent = lambda _: hub.plain.update({"/models/phi.gguf": changed})

    assert content(fetch(store, f"{hub.url}/models/phi.gguf")) == changed


def test_without_an_etag_two_halves_are_never_put_together(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.cuts, hub.has_etag = [MIB, *([0] * 20)], False
    refusal(store, f"{hub.url}/models/phi.gguf")
    hub.cuts.clear()
    hub.requests.clear()

    assert content(fetch(store, f"{hub.url}/models/phi.gguf")) == weights
    assert [r.range for r in hub.bodies()] == [None]


def test_a_server_that_refuses_head_and_says_no_length_still_serves(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.head_status, hub.says_length = 405, False

    assert content(fetch(store, f"{hub.url}/models/phi.gguf")) == weights


def test_a_password_in_a_url_is_used_but_neither_shown_nor_kept(hub: Hub, store: Store) -> None:
    address = hub.url.removeprefix("http://")
    url = f"http://jo:sesame@{address}/models/phi.gguf?key=sesame"
    fetch(store, url)

    assert hub.bodies()[0].authorization is not None
    assert hub.bodies()[0].path.endswith("?key=sesame")
    assert "sesame" not in "".join(p.read_text() for p in store.folder.rglob("*.json"))
    hub.plain.clear()
    assert "sesame" not in refusal(store, url, name="other")


def test_a_web_page_instead_of_weights_is_refused_and_deleted(hub: Hub, store: Store) -> None:
    hub.plain["/models/page.gguf"] = b"<!doctype html><title>Log in</title>" * 100
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        fetch(store, f"{hub.url}/models/page.gguf")

    assert (store.models(), half_arrived(store)) == ([], [])


# Names


def test_another_model_of_the_same_name_is_refused(hub: Hub, store: Store, weights: bytes) -> None:
    fetch(store)
    hub.put("acme/other/phi-q4.gguf", weights[:-1] + b"?")
    hub.requests.clear()

    assert "--name" in refusal(store, "hf:acme/other/phi-q4.gguf")
    assert hub.bodies() == []
    assert fetch(store, "hf:acme/other/phi-q4.gguf", name="other").model.name == "other"


def test_a_file_that_was_dropped_into_the_store_is_not_overwritten(hub: Hub, store: Store) -> None:
    store.folder.mkdir()
    store.weights_path("phi-q4").write_bytes(b"mine")

    assert "without a manifest" in refusal(store)
    assert store.weights_path("phi-q4").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hf:acme", "names no file on the hub"),
        ("hf:acme/phi/model.safetensors", "names no file on the hub"),
        ("https://", "names no server"),
        ("phi-5", "known are phi-4,"),
        ("phi-4:q1_0", "there are: q4_0, q4_k_m, q8_0"),
        ("phi-3-small-8k-instruct", "cannot be served"),
        ("file:/tmp/..gguf", "cannot be a model's name"),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_what_can(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_target(text)


def test_the_page_of_a_file_on_the_hub_is_the_file_on_the_hub() -> None:
    for verb in ("blob", "resolve"):
        url = f"https://huggingface.co/acme/phi-GGUF/{verb}/main/phi-q4.gguf?download=true"
        assert parse_target(url).source.target == FILE


def test_a_file_of_another_server_is_no_file_of_the_hub() -> None:
    url = "https://example.org/acme/phi-GGUF/resolve/main/phi-q4.gguf"
    assert isinstance(parse_target(url).source, UrlSource)


# Files


def test_a_file_that_is_here_is_copied(store: Store, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "usb.gguf").write_bytes(weights)

    assert content(fetch(store, f"file:{tmp_path}/usb.gguf")) == weights


def test_a_file_from_another_store_is_held_to_its_manifest(
    hub: Hub, store: Store, tmp_path: Path
) -> None:
    model = fetch(Store(tmp_path / "elsewhere")).model
    manifest = fetch(store, f"file:{model.path}").model.manifest
    assert manifest is not None
    assert manifest.sha256_from == "hub"
    with model.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")

    assert "damaged" in refusal(store, f"file:{model.path}", name="other")


def test_a_file_that_was_dropped_into_the_store_can_be_adopted(
    store: Store, weights: bytes
) -> None:
    store.folder.mkdir()
    store.weights_path("mine").write_bytes(weights)
    assert store.find("mine").problem

    fetch(store, f"file:{store.weights_path('mine')}")
    store.verify(store.find("mine"), deep=True)


def test_a_file_that_is_not_there_is_named(store: Store) -> None:
    assert "/nowhere/phi.gguf" in refusal(store, "file:/nowhere/phi.gguf")
