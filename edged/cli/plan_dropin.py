"""``edged plan --systemd-dropin``: the most memory that the service may take."""

from typing import Final

from edged.cli.outlook import Outlook
from edged.models.plan import mib

BESIDE_WORKER_BYTES: Final = 256 * 2**20
"""The daemon (50 MiB), its planner and the check of a grammar, which come and go; assumed."""
LEAST_SHARE: Final = 2
"""However much is kept for the system: half of a small board is left for a small model."""


def dropin(outlook: Outlook) -> str:
    """A backstop that holds for every model of this board, so that models can be switched."""
    machine, total_bytes = outlook.machine, outlook.profile.memory.total_bytes or 0
    worker_bytes = max(machine.memory_bytes, total_bytes // LEAST_SHARE)
    return f"""\
# Made by `edged plan --systemd-dropin` for the profile {outlook.profile.name}. To
# /etc/systemd/system/edged.service.d/memory.conf, and then: systemctl daemon-reload
[Service]
# A backstop, which edged should never meet: it gives memory back before. {mib(worker_bytes)} is
# the most that a plan may use on this board, and {mib(BESIDE_WORKER_BYTES)} are for the daemon.
MemoryMax={worker_bytes + BESIDE_WORKER_BYTES}
"""
