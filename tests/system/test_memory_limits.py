"""What the node does in a real control group that is too small, and in one that is not.

The model has Phi-3-mini's dimensions in a few layers, so that cache and weights weigh what makes a
difference; the campaign (``pytest -m campaign tests/system/test_memory_limits.py``) does the same
with all of its layers.
"""

import re
from pathlib import Path

import pytest
from bus_client import BusClient
from node import Broker, Node, running

from edged.hardware.machine import read_machine
from edged.models.catalogue import read_catalogue
from edged.models.configuration import Configuration
from edged.models.gguf import read_header
from edged.models.plan import uses_flash_attention
from edged.models.shape import shape_of
from edged.models.shape_file import write_shape_file
from edged.models.sizing import memory

pytest.importorskip("llama_cpp")

MIB = 2**20
CTX, SLOTS = 1024, 4
SMALLEST_MARGIN = 100 * MIB


@pytest.fixture(
    scope="module", params=[6, pytest.param(32, marks=pytest.mark.campaign)], ids="{} layers".format
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers: int = request.param
    entry = read_catalogue().find("phi-3-mini-4k-instruct").model_copy(update={"layers": layers})
    path = tmp_path_factory.mktemp("model") / "shape.gguf"
    write_shape_file(entry, "q4_0", path)
    return path


def limit(group: Path, limit_bytes: int) -> None:
    (group / "memory.limit_in_bytes").write_text(str(limit_bytes))


def killed(group: Path) -> int:
    """Processes of the group that the kernel ended for want of memory."""
    found = re.search(r"^oom_kill (\d+)$", (group / "memory.oom_control").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def needed_bytes(model: Path) -> int:
    """What the plan for CTX tokens in each of SLOTS slots and the most exact cache needs."""
    isa = read_machine().isa
    how = Configuration(
        engine="llama_cpp",
        ctx=CTX,
        slots=SLOTS,
        cells=CTX * SLOTS,
        kv_type="f16",
        flash_attention=uses_flash_attention("llama_cpp", "f16", 0, isa),
        load_mode="none",
        ubatch_tokens=64,
        gpu_layers=0,
    )
    return memory(shape_of(read_header(model)), how, isa).host.total_bytes


def margin(needed: int) -> int:
    return max(SMALLEST_MARGIN, needed * 4 // 100)


def settings(model: Path) -> dict[str, object]:
    return {
        "model__path": model,
        "engine__name": "llama_cpp",
        "engine__ctx": CTX,
        "engine__slots": SLOTS,
        "sampling__max_tokens_limit": 8192,
    }


def fill(client: BusClient, node: Node, ctx: int) -> dict[str, object]:
    """A prompt that fills the context but for a few tokens, and its answer."""
    text = "a b c d " * ctx
    end = client.ask(node.name, prompt=text, max_tokens=8)[-1]
    while end["type"] == "failed" and end["code"] == "prompt_too_long":
        text = text[: int(len(text) * (ctx - 8) / end["details"]["prompt_tokens"]) - 1]
        end = client.ask(node.name, prompt=text, max_tokens=8)[-1]
    return end


def test_a_group_larger_by_the_margin_holds_the_whole_plan_and_a_full_context(
    broker: Broker, model: Path, memory_group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus_client.PATIENCE_S", 300.0)
    needed = needed_bytes(model)
    limit(memory_group, needed + margin(needed))
    with (
        running("roomy", broker.port, tmp_path, group=memory_group, **settings(model)) as node,
        BusClient(broker.port) as client,
    ):
        card = node.card()
        assert (card["ctx"], card["slots"], card["kv_type"]) == (CTX, SLOTS, "f16")
        assert card["fallbacks"] == []
        done = fill(client, node, CTX)
        assert done["type"] == "done"
        assert done["usage"]["prompt_tokens"] > CTX - 16  # type: ignore[index]
    assert killed(memory_group) == 0


def test_a_group_smaller_by_the_margin_gets_a_smaller_plan_that_it_holds(
    broker: Broker, model: Path, memory_group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus_client.PATIENCE_S", 300.0)
    needed = needed_bytes(model)
    limit(memory_group, needed - margin(needed))
    with (
        running("tight", broker.port, tmp_path, group=memory_group, **settings(model)) as node,
        BusClient(broker.port) as client,
    ):
        card, state = node.card(), node.wait_for_state("serving")
        assert card["fallbacks"]
        assert "fallbacks: " in str(state["reason"])
        assert "fallback: q8_0 cache instead of f16" in node.log
        done = fill(client, node, int(str(card["ctx"])))
        assert done["type"] == "done"
    assert killed(memory_group) == 0


def test_a_group_far_too_small_is_refused_with_numbers_until_memory_returns(
    broker: Broker, model: Path, memory_group: Path, tmp_path: Path
) -> None:
    needed = needed_bytes(model)
    limit(memory_group, 200 * MIB)
    node = Node("poor", broker.port, tmp_path, group=memory_group, **settings(model))
    try:
        state = node.wait_for_state("refused")
        assert "not enough memory" in str(state["reason"])
        with BusClient(broker.port) as client:
            failed = client.ask("poor", prompt="hello")[-1]
            assert (failed["code"], failed["status"]) == ("out_of_memory", 507)
            assert failed["retry_after_s"] > 0
            assert failed["details"]["needed"] > failed["details"]["available"]
            limit(memory_group, needed + margin(needed))
            node.wait_for_state("serving")
            assert client.ask("poor", prompt="hello", max_tokens=2)[-1]["type"] == "done"
    finally:
        node.stop()
    assert killed(memory_group) == 0
