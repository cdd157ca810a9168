"""Pulls that are cut, and go on with what has arrived."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub
from huggingface_hub import constants
from pulling import FILE, MIB, content, fetch, half_arrived, refusal

import edged.models.pull
from edged.models.pull import RESERVE_BYTES
from edged.models.store import Store

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
