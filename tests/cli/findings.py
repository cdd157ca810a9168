"""What one check of ``edged doctor`` finds here."""

from edged.cli import checks
from edged.hardware.health import Finding


def finds(name: str) -> list[Finding]:
    return checks.guarded(checks.CHECKS[name], checks.Node(None))
