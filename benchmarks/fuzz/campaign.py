"""The process that is fuzzed: atheris, which is libFuzzer with the coverage of Python.

``python -m benchmarks.fuzz.campaign FOLDER RUNS SECONDS SEED`` writes a line of JSON about once a
second. It is a process of its own since what it looks for could end it.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

import atheris

# Read before the hook is set, so that only what is under test is instrumented.
import edged.models.choice
import edged.settings
import edged.spool.spool

with atheris.instrument_imports(include=["edged"]):
    import edged.transports.mqtt  # noqa: F401

from benchmarks.fuzz.case import Case, dump, load
from benchmarks.fuzz.judge import Finding, judge
from benchmarks.fuzz.mutate import Mutator
from benchmarks.fuzz.seeds import seeds

MAX_BYTES = 300_000
"""Of an input: above what a payload may have by default."""
FILES_A_KIND = 3
TELL_EVERY_S = 1.0
MEMORY_AT = (0.01, 0.1, 0.5, 1.0)
LIBFUZZER = (
    f"-max_len={MAX_BYTES}",
    "-len_control=0",
    "-timeout=60",
    "-rss_limit_mb=4096",
    "-reload=0",
    "-detect_leaks=0",
    "-verbosity=0",
)


@dataclass
class Progress:
    """What there is to tell; bytes are resident memory of this process, by part of the runs."""

    runs: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    resident_bytes: dict[str, int] = field(default_factory=dict)
    slowest_cpu_s: float = 0.0


class Campaign:
    """Counts, keeps what is found, and ends the process when it is enough."""

    def __init__(self, folder: Path, runs: int, seconds: float) -> None:
        self._folder = folder
        self._runs = runs
        self._seconds = seconds
        self._began_s = time.monotonic()
        self._told_s = 0.0
        self._progress = Progress()

    def one(self, data: bytes) -> int:
        """What libFuzzer calls; -1 keeps an input out of the corpus."""
        try:
            case = load(data)
        except (ValueError, TypeError):
            return -1
        progress = self._progress
        progress.runs += 1
        try:
            judged = judge(case)
        except Finding as finding:
            self._keep(finding, data)
        else:
            progress.ends[judged.end] += 1
            if judged.cpu_s > progress.slowest_cpu_s:
                progress.slowest_cpu_s = judged.cpu_s
                (self._folder / "slowest").write_bytes(data)
        now_s = time.monotonic()
        if progress.runs >= self._runs or now_s - self._told_s > TELL_EVERY_S:
            self._told_s = now_s
            self._tell(now_s - self._began_s)
        return 0

    def _keep(self, finding: Finding, data: bytes) -> None:
        self._progress.findings[finding.kind] += 1
        if self._progress.findings[finding.kind] <= FILES_A_KIND:
            word = "".join(each if each.isalnum() else "-" for each in finding.kind)
            path = self._folder / "finds" / f"{word}-{sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)

    def _tell(self, seconds: float) -> None:
        progress = self._progress
        progress.seconds = seconds
        done = max(progress.runs / self._runs, seconds / self._seconds)
        for part in MEMORY_AT:
            if done >= part:
                progress.resident_bytes.setdefault(str(part), _resident_bytes())
        print(json.dumps(vars(progress)), flush=True)
        if done >= 1:
            os._exit(0)  # atheris knows no way back


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """See the module."""
    folder, runs, seconds, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    beginnings = seeds()
    mutator_random = Random(seed)
    mutator = Mutator(mutator_random, beginnings, MAX_BYTES - 4096)

    def mutated(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        mutator_random.seed(mutation_seed)
        try:
            case: Case = load(data)
        except (ValueError, TypeError):
            case = mutator_random.choice(beginnings)
        changed = dump(mutator.mutated(case))
        return changed if len(changed) <= max_size else data

    campaign = Campaign(folder, runs, seconds)
    arguments = [
        *(sys.argv[0], str(folder / "corpus"), f"-seed={seed}"),
        *(f"-artifact_prefix={folder}/finds/", *LIBFUZZER),
    ]
    atheris.Setup(arguments, campaign.one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
