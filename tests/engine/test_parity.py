"""Both engines say the same."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVAL = Path(__file__).parents[2] / "tools/tiny_model/eval/commands.json"
PROMPTS = 200
TIE = 0.2
"""Two logits closer than this may change places: the engines round activations differently."""

for engine in ("llama_cpp", "ctransformers"):
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed", allow_module_level=True)


def answers(engine: str, prompts: list[str], state_dir: Path) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "greedy.py"), engine, str(state_dir)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def test_both_engines_give_the_same_greedy_text_on_held_out_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [case["prompt"] for case in json.loads(EVAL.read_text())][:PROMPTS]
    assert len(prompts) == PROMPTS
    ours = answers("llama_cpp", prompts, tmp_path)
    theirs = answers("ctransformers", prompts, tmp_path)
    ties = 0
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        assert one["ids"] == other["ids"], prompt
        if one["said"] == other["said"]:
            assert one["text"] == other["text"]
            continue
        at = next(
            index
            for index, (a, b) in enumerate(zip(one["said"], other["said"], strict=False))
            if a != b
        )
        gap = min(one["gaps"][at], other["gaps"][at])
        assert gap < TIE, f"{prompt!r}: {one['text']!r} and {other['text']!r} part at {gap:.2f}"
        ties += 1
    with capsys.disabled():
        print(  # noqa: T201 (what a passing run has to tell)
            f"\n{PROMPTS} prompts, {ties} of them diverge at a tie of less than {TIE}"
        )
