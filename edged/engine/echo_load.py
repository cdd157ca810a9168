"""What the echo engine is told to load: it has no weights to plan for."""

from edged.engine.frames import Load
from edged.settings import Settings


def echo_load(settings: Settings) -> Load:
    """Slots, context and speed as the operator set them."""
    return Load(
        engine="echo",
        model_path=None,
        state_dir=str(settings.state_dir),
        ctx=settings.engine.ctx,
        slots=settings.engine.slots or 1,
        threads=settings.engine.threads,
        echo_step_ms=settings.engine.echo_step_ms,
    )
