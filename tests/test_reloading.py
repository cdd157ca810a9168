"""What SIGHUP changes without a restart."""

from pathlib import Path

from edged.reloading import LIVE, reloaded
from edged.settings import ChatSettings, MqttSettings, QueueSettings, Settings


def settings(**changes: object) -> Settings:
    return Settings(node="attic", state_dir=Path("/nowhere"), **changes)  # type: ignore[arg-type]


def test_the_same_settings_change_nothing() -> None:
    outcome = reloaded(settings(), settings())

    assert (outcome.settings, outcome.changed, outcome.waiting) == (settings(), (), ())


def test_limits_and_prompts_change_at_once() -> None:
    read = settings(
        queue=QueueSettings(max_prompts=3), chat=ChatSettings(system_prompt="Be brief.")
    )
    outcome = reloaded(settings(), read)

    assert (outcome.settings, outcome.changed) == (read, ("chat", "queue"))


def test_what_needs_a_restart_stays_and_is_named() -> None:
    outcome = reloaded(settings(), settings(mqtt=MqttSettings(host="elsewhere")))

    assert (outcome.settings, outcome.waiting) == (settings(), ("mqtt",))


def test_every_live_name_is_a_setting() -> None:
    assert set(LIVE) <= set(Settings.model_fields)
