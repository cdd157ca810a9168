"""Pulling from a hub that speaks the real one's protocol, and fails in every way it can."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
from gguf_files import Shape, write_phi3
from hub_server import Hub, serving
from huggingface_hub import constants

import edged.models.pull
from edged.errors import ConfigError, ModelFileError, PullError
from edged.models.partial import exclusive, partial_of, partials
from edged.models.pull import RESERVE_BYTES, Pulled, pull, stopped
from edged.models.sources import HubSource, UrlSource
from edged.models.store import Store
from edged.models.targets import parse_target

FILE = "hf:acme/phi-GGUF/phi-q4.gguf"
MIB = 1 << 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 8 MB."""
    path = tmp_path_factory.mktemp("weights") / "phi.gguf"
    shape = Shape(hidden=512, heads=4, kv_heads=4, feed_forward=512, layers=1)
    write_phi3(path, shape, quantisation=gguf.GGMLQuantizationType.F32)
    return path.read_bytes()


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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


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


# Resuming


def test_a_cut_connection_is_resumed_where_it_broke(hub: Hub, store: Store, weights: bytes) -> None:
    hub.cuts = [MIB, 2 * MIB]
    pulled = fetch(store)

    assert content(pulled) == weights
    assert [r.range for r in hub.on_cdn()] == [None, f"bytes={MIB}-", f"bytes={3 * MIB}-"]


def test_a_connection_that_always_breaks_at_the_same_byte_ends_with_what_is_kept(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.cuts = [MIB, *([0] * 20)]
    message = refusal(store)

    assert f"{MIB} of {len(weights)} bytes are kept" in message
    assert len(hub.on_cdn()) == 1 + edged.models.pull._TRIES - 1
    assert half_arrived(store) == [MIB]


def test_a_connection_that_moves_on_is_not_given_up(hub: Hub, store: Store, weights: bytes) -> None:
    hub.cuts = [MIB // 4] * 3 * edged.models.pull._TRIES

    assert content(fetch(store)) == weights


def test_the_next_pull_goes_on_where_the_last_one_stopped(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.cuts = [MIB, *([0] * 20)]
    refusal(store)
    hub.cuts.clear()
    hub.requests.clear()

    assert content(fetch(store)) == weights
    assert [r.range for r in hub.on_cdn()] == [f"bytes={MIB}-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.cuts, hub.has_ranges = [MIB], False

    assert content(fetch(store)) == weights


def test_a_server_that_always_breaks_and_knows_no_ranges_is_given_up(
    hub: Hub, store: Store
) -> None:
    hub.cuts, hub.has_ranges = [MIB] * 50, False

    assert "the connection" in refusal(store)


def test_a_file_that_changed_between_two_pulls_starts_over(
    hub: Hub, store: Store, weights: bytes
) -> None:
    hub.cuts = [MIB, *([0] * 20)]
    refusal(store)
    hub.cuts.clear()
    hub.requests.clear()
    changed = weights[:-1] + bytes([weights[-1] ^ 1])
    hub.put("acme/phi-GGUF/phi-q4.gguf", changed)

    assert content(fetch(store)) == changed
    assert [r.range for r in hub.on_cdn()] == [None]


@pytest.mark.parametrize(("target", "resumes"), [(FILE, True), ("{url}/models/phi.gguf", False)])
def test_after_a_power_cut_only_what_a_checksum_vouches_for_is_resumed(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, target: str, resumes: bool
) -> None:
    target = target.format(url=hub.url)
    hub.cuts = [MIB, *([0] * 20)]
    refusal(store, target)
    hub.cuts.clear()
    hub.requests.clear()
    monkeypatch.setattr("edged.models.pull.boot_id", lambda: "another boot")
    fetch(store, target)

    assert [r.range for r in hub.bodies()][-1] == (f"bytes={MIB}-" if resumes else None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(
    hub: Hub, store: Store, weights: bytes, status: int
) -> None:
    hub.statuses = [status, status]

    assert content(fetch(store)) == weights


def test_a_server_in_trouble_for_long_is_an_error_with_its_status(hub: Hub, store: Store) -> None:
    hub.statuses = [503] * 50

    assert "status 503; try later" in refusal(store)


def test_a_silent_server_is_given_up(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.pause_s = 0.5

    assert "does not answer in time" in refusal(store)


class Killed(BaseException):
    """Nothing in edged may catch it."""


@pytest.mark.parametrize("target", [FILE, "{url}/models/phi.gguf"])
@pytest.mark.parametrize("step", ["add", "adopt"])
def test_a_pull_that_dies_at_the_very_end_is_completed_without_fetching(
    hub: Hub,
    store: Store,
    weights: bytes,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    step: str,
) -> None:
    def die(*_: object) -> None:
        raise Killed

    target = target.format(url=hub.url)
    with monkeypatch.context() as patch:
        patch.setattr(Store, step, die)
        with pytest.raises(Killed):
            fetch(store, target)
    assert all(model.problem for model in store.models())
    hub.requests.clear()

    assert content(fetch(store, target)) == weights
    assert hub.bodies() == []


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


# Two at once


def test_a_second_pull_into_the_same_store_says_who_is_at_it(hub: Hub, store: Store) -> None:
    with exclusive(store.folder, "edged models pull something"):
        assert f"process {os.getpid()} (edged models pull something)" in refusal(store)


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for the reserve and 10 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = RESERVE_BYTES + 10 * MIB
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_refused_before_anything_is_fetched(hub: Hub, small_disk: Path) -> None:
    (small_disk / "others").write_bytes(bytes(4 * MIB))
    message = refusal(Store(small_disk / "store"))

    assert "are available" in message
    assert "edged models rm" in message
    assert hub.bodies() == []


def test_a_full_disk_is_refused_where_nothing_can_be_mounted(
    hub: Hub, store: Store, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=len(weights) + RESERVE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert f"{usage.free} are available" in refusal(store)
    assert hub.bodies() == []


def test_a_disk_that_fills_meanwhile_keeps_what_has_arrived(
    hub: Hub, small_disk: Path, weights: bytes
) -> None:
    store, filler = Store(small_disk / "store"), small_disk / "filler"

    def fill(_: int) -> None:
        if not filler.exists():
            filler.write_bytes(bytes(RESERVE_BYTES + 6 * MIB))

    hub.on_sent = fill
    message = refusal(store)
    assert "is full; make room" in message
    assert "are kept" in message
    arrived = half_arrived(store)[0]
    assert 0 < arrived < len(weights)
    filler.unlink()
    hub.on_sent = None
    hub.requests.clear()

    assert content(fetch(store)) == weights
    assert [r.range for r in hub.on_cdn()] == [f"bytes={arrived}-"]


# The command, killed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 43 MB."""
    path = tmp_path_factory.mktemp("large") / "phi.gguf"
    shape = Shape(hidden=1024, heads=8, kv_heads=8, feed_forward=2048, layers=1)
    write_phi3(path, shape, quantisation=gguf.GGMLQuantizationType.F32)
    return path.read_bytes()


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
