"""A process stays as large as it was."""

import subprocess
import sys

import pytest

GROW = """
import os, threading
from edged.allocator import Allocator
from edged.hardware.memory import status_bytes

allocator = Allocator()
before_bytes = status_bytes(os.getpid(), "RssAnon")
peak = threading.Barrier(5)

def run():
    held = [bytes(5000) for _ in range(4000)]
    pins = [bytes(2000) for _ in range(2)]  # behind what becomes free
    del held
    peak.wait()
    peak.wait()

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
peak.wait()
allocator.trim()
print(status_bytes(os.getpid(), "RssAnon") - before_bytes)
peak.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_threads_had_goes_back_to_the_system() -> None:
    run = subprocess.run([sys.executable, "-c", GROW], capture_output=True, text=True, check=True)

    assert int(run.stdout) < 2**20


def test_settling_changes_nothing_that_is_seen() -> None:
    script = "from edged.allocator import Allocator; Allocator().settle(); print('well')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == "well\n"


COME_AND_GO = """
import os, sys
import edged.daemon
from edged.allocator import Allocator
from edged.hardware.memory import status_bytes

kept = [sys.intern(f"kept {number}") for number in range(10_000)]
if "settled" in sys.argv:
    Allocator().settle()
before_bytes = status_bytes(os.getpid(), "RssAnon")
for number in range(60_000):
    sys.intern(f"comes and goes {number}")
print(status_bytes(os.getpid(), "RssAnon") - before_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="interned strings stay")
def test_names_that_come_and_go_take_no_more_memory_later() -> None:
    grown_bytes = {
        state: int(
            subprocess.run(
                [sys.executable, "-c", COME_AND_GO, state],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for state in ("settled", "as it was")
    }

    assert grown_bytes["settled"] < 2**18 < grown_bytes["as it was"]
