"""Pulling from a hub that speaks the real one's protocol, and fails in every way it can."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_files import Shape
from hub_server import Hub
from huggingface_hub import constants
from pulling import FILE, MIB, content, fetch, half_arrived, of_shape, refusal

from edged.errors import ModelFileError, PullError
from edged.models.partial import exclusive, partial_of
from edged.models.pull import stopped
from edged.models.sources import HubSource
from edged.models.store import Store
from edged.models.targets import parse_target

# From the hub


def test_a_model_arrives_with_the_hubs_checksum_commit_and_its_quantisation(
    hub: Hub, store: Store, weights: bytes
) -> None:
    pulled = fetch(store)
    manifest = pulled.model.manifest

    assert content(pulled) == weights
    assert manifest is not None
    assert (manifest.sha256, manifest.sha256_from) == (hashlib.sha256(weights).hexdigest(), "hub")
    assert manifest.source == f"{FILE}@{hub.commits['acme/phi-GGUF']}"
    assert (manifest.size_bytes, manifest.quantisation) == (len(weights), "Q4_0")
    assert half_arrived(store) == []


def test_pulling_again_fetches_nothing(hub: Hub, store: Store) -> None:
    fetch(store)
    hub.requests.clear()

    assert fetch(store).was_there
    assert hub.bodies() == []


def test_a_manifests_source_can_be_pulled_again(hub: Hub, store: Store) -> None:
    manifest = fetch(store).model.manifest
    assert manifest is not None

    assert fetch(store, manifest.source).was_there


def test_an_entry_of_the_catalogue_is_pulled_from_its_repository_under_its_own_name(
    hub: Hub, store: Store, weights: bytes
) -> None:
    target = parse_target("phi-4:q8_0")
    assert isinstance(target.source, HubSource)
    hub.put(f"{target.source.repository}/{target.source.file}", weights)
    model = fetch(store, "phi-4:q8_0").model

    assert model.name == "phi-4-q8_0"
    assert model.manifest is not None
    assert model.manifest.catalogue == "phi-4"


def test_a_token_goes_to_the_hub_but_not_to_where_it_redirects(hub: Hub, store: Store) -> None:
    hub.token = "hf_sesame"
    fetch(store, token="hf_sesame")

    assert {r.authorization for r in hub.on_cdn()} == {None}
    assert hub.on_cdn()


@pytest.mark.parametrize(
    ("token", "remedy"), [(None, "edged.model.hub_token"), ("hf_wrong", "renew the token")]
)
def test_a_gated_model_says_what_to_do_and_not_the_token(
    hub: Hub, store: Store, token: str | None, remedy: str
) -> None:
    hub.token = "hf_sesame"
    with pytest.raises(PullError) as caught:
        fetch(store, token=token)

    assert remedy in str(caught.value)
    assert "hf_" not in str(caught.value)


def test_a_file_that_is_not_there_lists_those_that_are(hub: Hub, store: Store) -> None:
    hub.put("acme/phi-GGUF/README.md", b"# Phi")
    message = refusal(store, "hf:acme/phi-GGUF/phi-q9.gguf")

    assert "no such file; acme/phi-GGUF has: phi-q4.gguf" in message
    assert "README" not in message


def test_a_revision_that_is_not_there_is_named(hub: Hub, store: Store) -> None:
    assert "has no revision v9" in refusal(store, f"{FILE}@v9")


def test_without_a_network_the_mirror_and_the_file_are_suggested(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    message = refusal(store)

    assert "cannot be reached" in message
    assert "HF_ENDPOINT" in message
    assert "file:PATH" in message


# Damage


def test_a_byte_that_flips_on_the_way_is_found_and_the_file_deleted(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.flip_at = len(weights) // 2
    message = refusal(store)

    assert hashlib.sha256(weights).hexdigest() in message
    assert (store.models(), half_arrived(store)) == ([], [])


def test_a_byte_that_flips_at_rest_is_found_and_the_next_pull_mends_it(
    hub: Hub, store: Store, weights: bytes
) -> None:
    model = fetch(store).model
    with model.path.open("r+b") as file:
        file.seek(len(weights) // 2)
        file.write(bytes([weights[len(weights) // 2] ^ 1]))
    store.verify(model, deep=False)
    with pytest.raises(ModelFileError, match="is damaged"):
        store.verify(model, deep=True)

    assert content(fetch(store)) == weights


# Two at once


def test_a_second_pull_into_the_same_store_says_who_is_at_it(hub: Hub, store: Store) -> None:
    with exclusive(store.folder, "edged models pull something"):
        assert f"process {os.getpid()} (edged models pull something)" in refusal(store)


# The command, killed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 43 MB."""
    shape = Shape(hidden=1024, heads=8, kv_heads=8, feed_forward=2048, layers=1)
    return of_shape(shape, tmp_path_factory.mktemp("large"))


def start(hub: Hub, folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EDGED_", "HF_"))}
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "EDGED_MODEL__STORE": str(folder / "store"),
        "EDGED_STATE_DIR": str(folder / "state"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "edged", "models", *arguments],
        env=clean | environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_ten_random_points_it_resumes_and_ends_byte_identical(
    hub: Hub, tmp_path: Path, large: bytes
) -> None:
    hub.put("acme/phi-GGUF/large.gguf", large)
    hub.pause_s = 0.002
    store, target = Store(tmp_path / "store"), "hf:acme/phi-GGUF/large.gguf"
    partial = partial_of(store.folder, target)
    points = sorted(random.Random(3).sample(range(len(large)), 10))
    arrived = []
    for point in points:
        hub.stall_at = point + MIB  # it cannot end before it is killed
        process = start(hub, tmp_path, "pull", target)
        while process.poll() is None and partial.arrived_bytes < point:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        hub.stall_at = None
        assert process.returncode == -9
        assert store.models() == []
        arrived.append(partial.arrived_bytes)
    process = start(hub, tmp_path, "pull", target)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert "verified by the hub's SHA-256" in out
    assert store.weights_path("large").read_bytes() == large
    store.verify(store.find("large"), deep=True)
    # What had arrived was never asked for again; sockets held what was lost with each kill.
    assert arrived == sorted(arrived)
    wanted = [r.range for r in hub.on_cdn() if r.range]
    assert set(wanted) <= {f"bytes={count}-" for count in arrived}
    assert len(wanted) >= 9
    assert hub.sent_bytes < 3 * len(large)
    assert not any((store.folder / ".partial").glob("[!.]*"))


def test_the_hubs_token_comes_as_a_credential(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_sesame"
    (tmp_path / "edged.model.hub_token").write_text("hf_sesame\n")
    process = start(hub, tmp_path, "pull", FILE, CREDENTIALS_DIRECTORY=str(tmp_path))
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert "hf_sesame" not in out + err


def test_what_goes_wrong_is_one_line_and_exit_code_6(hub: Hub, tmp_path: Path) -> None:
    process = start(hub, tmp_path, "pull", "hf:acme/phi-GGUF/nothing.gguf")
    _, err = process.communicate(timeout=60)

    assert (process.returncode, len(err.splitlines())) == (6, 1)


def test_ctrl_c_says_what_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.pause_s = 0.05
    process = start(hub, tmp_path, "pull", FILE)
    partial = partial_of(tmp_path / "store", FILE)
    while process.poll() is None and partial.arrived_bytes < MIB:
        time.sleep(0.001)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.splitlines()[-1] == f"edged: {stopped_text(tmp_path)}"


def stopped_text(folder: Path) -> str:
    return f"stopped; {stopped(parse_target(FILE), Store(folder / 'store'))}"


def test_without_a_terminal_every_tenth_is_a_line(hub: Hub, tmp_path: Path) -> None:
    process = start(hub, tmp_path, "pull", FILE)
    _, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if line.startswith("pulling")]

    assert process.returncode == 0
    assert len(lines) == len(set(lines)) <= 11
    assert lines[-1].startswith("pulling 100 %")


def test_the_manifest_is_json_that_an_operator_can_read(hub: Hub, store: Store) -> None:
    fetch(store)
    manifest = json.loads((store.folder / "phi-q4.json").read_text())

    assert set(manifest) == {
        *("name", "source", "size_bytes", "sha256", "sha256_from"),
        *("pulled_at", "version", "catalogue", "quantisation"),
    }
