"""The collection on three fresh hosts, one broker and two nodes of different profiles.

In the order of the file: each test finds the fleet as the one before left it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, asked, fleet, secret_of, what_ansible_lacks
from tree import what_is_missing
from versions import (
    ANSWERS_SLOWLY,
    CANNOT_ANSWER,
    DOES_NOT_START,
    VERSION,
    Edits,
    other_version,
)

MISSING = what_is_missing() or what_ansible_lacks("ansible-playbook", "ssh-keygen", "ip")
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]

GOOD = "0.2.0"
CLOSET = """\
extends = "generic-x86_64"
description = "A PC in a closet"

[[match]]
cpu_model = ["*"]
"""
KILLED_AT = (
    "Copy the wheels",
    "Install edged into it",
    "Give the configuration to the broker",
    "Write the settings",
    "Restart edged",
)
QUICK = ("-e", '{"edged_gate_answer_s": 20, "edged_gate_patience_s": 20, "edged_gate_prompts": 5}')


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "closet.toml").write_text(CLOSET)
    with fleet(folder, ["hall", "attic", "cellar"]) as made:
        made.inventory(
            {
                "edged_broker": {"hall": {}},
                "edged_nodes": {
                    "attic": {"edged_profile": "generic-x86_64"},
                    "cellar": {
                        "edged_profile": "closet",
                        "edged_profile_files": [str(folder / "closet.toml")],
                    },
                },
            },
            mosquitto_websockets_port=9001,
        )
        yield made


def versions(three: Fleet) -> dict[str, str]:
    """What each node's card says."""
    return {name: version(three, name) for name in ("attic", "cellar")}


def version(three: Fleet, name: str) -> str:
    return three.hosts[name].run("/opt/edged/current/bin/edged version | head -1").split()[1]


# site.yml


@pytest.mark.parametrize("task", KILLED_AT)
def test_a_run_is_killed_in_the_middle(three: Fleet, task: str) -> None:
    three.killed_at(task)


def test_the_next_run_heals_what_the_killed_ones_left(three: Fleet) -> None:
    three.converge()

    assert {three.answer(name)["type"] for name in ("attic", "cellar")} == {"done"}


def test_a_second_run_changes_nothing(three: Fleet) -> None:
    play = three.converge()

    assert {host: counts["changed"] for host, counts in play.recap.items()} == {
        "hall": 0,
        "attic": 0,
        "cellar": 0,
    }, play.changed


def test_the_pool_answers(three: Fleet) -> None:
    found = asked(three.asking("edged/v1/pool/fleet"))

    assert found["ends"].keys() == {"done"}


def test_no_secret_is_in_any_output(three: Fleet) -> None:
    said = (three.folder / "plays.log").read_text()

    assert not [name for name in ("attic", "cellar", "hub") if secret_of(name) in said]


# upgrade.yml


@pytest.mark.parametrize(
    ("bad", "edits", "why"),
    [
        ("0.1.1", DOES_NOT_START, "Restart the service"),
        ("0.1.2", CANNOT_ANSWER, "Ask"),
        ("0.1.3", ANSWERS_SLOWLY, "of its own speed before"),
    ],
    ids=["does not start", "cannot answer", "answers slowly"],
)
def test_a_broken_version_is_taken_back(three: Fleet, bad: str, edits: Edits, why: str) -> None:
    if edits is ANSWERS_SLOWLY:
        answers = [three.answer("attic")["timings"]["decode_tokens_per_s"] for _ in range(5)]
        slow_s = 9 / max(answers)
        ((name, (before, after)),) = edits.items()
        edits = {name: (before, after.format(slow_s=slow_s))}
    other_version(three.folder / "wheels", bad, edits)
    client = three.asking("edged/v1/attic", "edged/v1/cellar", "edged/v1/pool/fleet")
    patient = ("-e", '{"edged_gate_answer_s": 120}') if edits is not CANNOT_ANSWER else ()
    play = three.play("upgrade", "-e", f"edged_version={bad}", *QUICK, *patient)
    found = asked(client)

    assert play.code != 0
    assert f"{bad} was taken back, {VERSION} runs and answers again" in play.output
    assert why in play.output
    assert versions(three) == {"attic": VERSION, "cellar": VERSION}
    assert three.hosts["cellar"].run(f"ls /opt/edged/{bad}", check=False) == ""
    assert found["lost"] == []
    assert found["accepted"] > 0
    assert three.answer("attic")["type"] == "done"


def test_an_upgrade_that_was_cut_off_is_judged_when_it_is_run_again(three: Fleet) -> None:
    """By what was found before it: the version that cannot answer is the current one by then."""
    bad = ("-e", "edged_version=0.1.2", *QUICK)
    three.killed_at("Judge it", "upgrade", *bad)
    left = version(three, "attic")
    site = three.play("site")
    again = three.play("upgrade", *bad)

    assert left == "0.1.2"
    assert "was cut off before it was judged" in site.output
    assert f"0.1.2 was taken back, {VERSION} runs and answers again" in again.output
    assert versions(three) == {"attic": VERSION, "cellar": VERSION}


def test_a_good_version_is_taken_by_all(three: Fleet) -> None:
    other_version(three.folder / "wheels", GOOD, {})
    client = three.asking("edged/v1/attic", "edged/v1/cellar", "edged/v1/pool/fleet")
    play = three.play("upgrade", "-e", f"edged_version={GOOD}", *QUICK)
    found = asked(client)

    assert play.code == 0, play.end
    assert versions(three) == {"attic": GOOD, "cellar": GOOD}
    assert found["lost"] == []


def test_a_second_upgrade_changes_nothing(three: Fleet) -> None:
    play = three.play("upgrade", "-e", f"edged_version={GOOD}", *QUICK)

    assert {counts["changed"] for counts in play.recap.values()} == {0}, play.changed


def test_site_leaves_the_version_that_runs(three: Fleet) -> None:
    play = three.converge()

    assert {counts["changed"] for counts in play.recap.values()} == {0}, play.changed
    assert versions(three) == {"attic": GOOD, "cellar": GOOD}


def test_facts_are_a_table(three: Fleet) -> None:
    play = three.play("facts")

    assert play.code == 0, play.end
    for name, profile in (("attic", "generic-x86_64"), ("cellar", "closet")):
        assert f"{name:16} {GOOD:8} {VERSION:8} {profile}" in play.output


def test_rollback_goes_to_the_version_before(three: Fleet) -> None:
    play = three.play("rollback", *QUICK)

    assert play.code == 0, play.end
    assert versions(three) == {"attic": VERSION, "cellar": VERSION}
    assert three.answer("cellar")["type"] == "done"


# models.yml


def test_another_model_is_served_without_losing_a_prompt(three: Fleet) -> None:
    bundled = Path(__file__).parents[2] / "edged/assets"
    (weights,) = bundled.glob("*.gguf")
    for name in ("attic", "cellar"):
        three.hosts[name].run("mkdir -p /srv/mirror")
        (three.hosts[name].folder / "srv/mirror/other.gguf").write_bytes(weights.read_bytes())
    model = '{"edged_models": [{"name": "other", "source": "file:/srv/mirror/other.gguf"}], '
    client = three.asking("edged/v1/attic", "edged/v1/cellar")
    play = three.play("models", "-e", f'{model} "edged_model": "other"}}', *QUICK)
    found = asked(client)

    assert play.code == 0, play.end
    assert found["lost"] == []
    assert found["ends"].keys() == {"done"}
    for name in ("attic", "cellar"):
        chosen = three.hosts[name].run("cat /var/lib/edged/model.json")
        assert '"serves": "other"' in chosen
