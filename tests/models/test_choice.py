"""Which model a machine gets, and why; what gives way when memory is missing."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.planning import catalogue_candidates, nominal
from edged.hardware.profile import profile_folders, read_profile
from edged.models.choice import Choice, choose, judge
from edged.models.configuration import KvType
from edged.models.fallback import FALLBACK_CTX, Admitted, Shortfall, _ladder, admit
from edged.models.plan import MIN_CTX, Candidate, Machine, Plan, Wishes, fits, needed

MIB, GIB = 2**20, 2**30
CATALOGUE = catalogue_candidates()
SHIPPED = profile_folders()[:1]
BOARDS = (
    *("pi5-8gb", "pi5-16gb", "pi4-8gb", "jetson-orin-nano-8gb", "jetson-orin-nx-16gb"),
    *("jetson-agx-orin-64gb", "rtx3060-12gb"),
)


@cache
def board(name: str) -> Machine:
    return nominal(read_profile(name, SHIPPED))


@cache
def choice(name: str) -> Choice:
    return choose(CATALOGUE, board(name), Wishes())


def candidate(name: str, quant: str) -> Candidate:
    return next(each for each in CATALOGUE if (each.name, each.quant) == (name, quant))


def outcome(of: Choice, name: str, quant: str) -> tuple[str, str]:
    verdict = next(
        each for each in of.verdicts if (each.candidate.name, each.candidate.quant) == (name, quant)
    )
    return verdict.outcome, verdict.why


def plan_for(name: str, quant: str, machine: Machine, wishes: Wishes | None = None) -> Plan:
    plan = judge(candidate(name, quant), machine, wishes or Wishes()).plan
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("name", "title", "slots", "ctx", "cells", "gpu_layers"),
    [
        ("pi5-8gb", "phi-4-mini-instruct Q4_K_M", 2, 4096, 8192, 0),
        ("pi5-16gb", "phi-4-mini-instruct Q4_K_M", 2, 8192, 16384, 0),
        ("pi4-8gb", "phi-4-mini-instruct Q4_K_M", 2, 4096, 8192, 0),
        ("jetson-orin-nano-8gb", "phi-4-mini-instruct Q8_0", 4, 4096, 4096, 33),
        ("jetson-orin-nx-16gb", "phi-4 Q4_K_M", 4, 16384, 16384, 41),
        ("jetson-agx-orin-64gb", "phi-4 Q8_0", 4, 16384, 65536, 41),
        ("rtx3060-12gb", "phi-4 Q4_K_M", 4, 8192, 8192, 41),
    ],
)
def test_each_board_gets_its_model(
    name: str, title: str, slots: int, ctx: int, cells: int, gpu_layers: int
):
    best = choice(name).plans[0]

    assert best.title == title
    assert (best.how.slots, best.how.ctx, best.how.cells) == (slots, ctx, cells)
    assert best.how.gpu_layers == gpu_layers
    assert best.how.kv_type == "f16"
    assert best.how.load_mode == "none"
    assert fits(best, board(name))


@pytest.mark.parametrize("name", BOARDS)
def test_the_reason_names_the_choice_and_what_every_better_model_fails_by(name: str):
    of = choice(name)
    best = of.plans[0]

    assert of.reason.startswith(f"{best.title} is the best that fits and is fast enough: ")
    better = {
        each.candidate.name
        for each in of.verdicts
        if each.plan is not None and each.candidate.rank > best.candidate.rank
    }
    assert all(f"{each} " in of.reason for each in better)


def test_a_raspberry_pi_5_of_8_gb_holds_no_phi_4():
    of = choice("pi5-8gb")

    assert board("pi5-8gb").memory_bytes == (7942 - 1024) * MIB
    assert outcome(of, "phi-4", "Q4_0")[0] == "too large"
    needs = needed(plan_for("phi-4", "Q4_0", board("pi5-8gb")), board("pi5-8gb"))
    assert needs > 8.4e9  # its weights alone
    assert (
        f"phi-4 Q4_0 needs {needs / MIB:,.0f} MiB, more than the 6,918 MiB of pi5-8gb without the "
        "system's share"
    ) in of.reason


def test_on_a_raspberry_pi_5_eight_bits_are_too_slow():
    assert outcome(choice("pi5-8gb"), "phi-4-mini-instruct", "Q8_0") == (
        "too slow",
        "would decode 2.5 tokens/s, below the 3 that are asked for",
    )


def test_more_memory_makes_phi_4_fit_a_raspberry_pi_5_but_not_fast():
    kind, why = outcome(choice("pi5-16gb"), "phi-4", "Q4_0")

    assert kind == "too slow"
    assert "1.4 tokens/s, below the 3" in why


def test_a_raspberry_pi_4_is_asked_for_one_token_a_second():
    best = choice("pi4-8gb").plans[0]

    assert 1 <= best.decode_tokens_per_s < 3
    assert outcome(choice("pi4-8gb"), "phi-4-mini-instruct", "Q8_0")[1].endswith(
        "below the 1 that are asked for"
    )


def test_a_processor_that_repacks_nothing_holds_a_tied_embedding_once():
    def weights(name: str) -> int:
        return choice(name).plans[0].memory.host.weights_bytes

    # Phi-4-mini's embedding in Q6_K, which the Pi 5's dot products have interleaved.
    assert weights("pi5-8gb") - weights("pi4-8gb") == pytest.approx(481 * MIB, rel=0.01)


def test_an_orin_nano_counts_processor_and_gpu_against_one_memory():
    machine = board("jetson-orin-nano-8gb")
    best = choice("jetson-orin-nano-8gb").plans[0]

    assert machine.is_unified
    assert machine.memory_bytes == (7619 - 1536) * MIB
    assert best.memory.gpu.total_bytes > 4 * GIB
    assert needed(best, machine) == best.memory.both.total_bytes
    assert best.memory.host.weights_bytes > 400 * MIB  # the embedding, which stays on the CPU
    tight = replace(machine, memory_bytes=best.memory.both.total_bytes - 1)
    assert best.memory.gpu.total_bytes < tight.memory_bytes
    assert not fits(best, tight)


def test_phi_4_is_whole_on_an_rtx_3060():
    of = choice("rtx3060-12gb")
    best = of.plans[0]

    assert best.memory.gpu.total_bytes <= (12288 - 512) * MIB
    assert best.memory.host.kv_bytes == 0
    assert "all layers on the GPU" in of.reason
    assert (
        "phi-4 Q8_0 fits only with 4096 tokens a prompt, 4 at once in 4096, f16 cache, "
        "30 of 40 layers on the GPU"
    ) in of.reason


def test_what_no_engine_can_load_says_why():
    kind, why = outcome(choice("pi5-8gb"), "phi-3-small-8k-instruct", "-")

    assert kind == "not loadable"
    assert "no architecture of llama.cpp" in why


def test_ctransformers_is_not_given_what_it_cannot_serve():
    of = choose(CATALOGUE, replace(board("pi5-8gb"), engine="ctransformers"), Wishes())

    assert of.plans[0].title == "phi-3-mini-4k-instruct Q4_K_M"
    assert (of.plans[0].how.slots, of.plans[0].how.cells) == (1, of.plans[0].how.ctx)
    assert not of.plans[0].how.flash_attention
    assert outcome(of, "phi-3.5-mini-instruct", "Q4_K_M")[0] == "not loadable"
    assert outcome(of, "phi-4-mini-instruct", "Q4_K_M")[0] == "not loadable"


def test_a_wish_for_a_long_context_goes_before_rank():
    of = choose(CATALOGUE, board("jetson-orin-nx-16gb"), Wishes(ctx=32768))
    best = of.plans[0]

    assert best.candidate.name == "phi-3-medium-128k-instruct"
    assert best.how.ctx == 32768
    assert best.rope == "long"
    assert "phi-4 Q4_0 fits only with 16384 tokens" in of.reason


def test_wishes_are_kept():
    wishes = Wishes(ctx=2048, slots=1, kv_type="q4_0", threads=3)
    best = choose(CATALOGUE, board("pi5-8gb"), wishes).plans[0]

    assert (best.how.ctx, best.how.slots, best.how.kv_type) == (2048, 1, "q4_0")
    assert (best.threads_prefill, best.threads_decode) == (3, 3)


def test_slots_share_what_memory_there_is():
    machine = board("pi5-8gb")
    wishes = Wishes(ctx=4096, slots=4)
    full = plan_for("phi-4-mini-instruct", "Q4_K_M", machine, wishes)
    tight = replace(machine, memory_bytes=needed(full, machine) - 1)

    assert (full.how.slots, full.how.cells) == (4, 4 * 4096)
    shared = plan_for("phi-4-mini-instruct", "Q4_K_M", tight, wishes)
    assert (shared.how.slots, shared.how.cells) == (4, 2 * 4096)


def test_cells_need_not_be_a_power_of_two_times_the_context():
    plan = plan_for("phi-4-mini-instruct", "Q4_K_M", board("pi5-8gb"), Wishes(ctx=2048, slots=3))

    assert plan.how.cells == 3 * 2048


@pytest.mark.parametrize(
    ("isa", "kv_type", "is_used"),
    [
        (("avx2",), "f16", False),
        (("avx2",), "q8_0", True),
        (("avx2",), "q4_0", True),
        (("neon", "dotprod"), "f16", True),
    ],
)
def test_flash_attention_is_for_quantised_caches_and_arm(
    isa: tuple[str, ...], kv_type: KvType, is_used: bool
):
    machine = replace(board("pi5-8gb"), isa=isa)
    plan = plan_for("phi-3.5-mini-instruct", "Q4_0", machine, Wishes(kv_type=kv_type))

    assert plan.how.flash_attention is is_used


def test_flash_attention_is_for_gpus_and_goes_with_the_last_layer_there():
    machine = replace(board("rtx3060-12gb"), isa=("avx2",))
    plan = plan_for("phi-3.5-mini-instruct", "Q4_0", machine, Wishes(kv_type="f16"))
    without = replace(machine, gpu_bytes=1)

    assert plan.how.flash_attention
    admitted = admit([plan], without)
    assert isinstance(admitted, Admitted)
    assert (admitted.plan.how.gpu_layers, admitted.plan.how.flash_attention) == (0, False)


def test_a_cache_that_gives_way_to_a_quantised_one_gets_flash_attention():
    machine = replace(board("pi5-8gb"), isa=("avx2",))
    plan = plan_for("phi-3.5-mini-instruct", "Q4_0", machine)

    steps = [smaller.how for smaller, _ in _ladder(plan, machine, MIN_CTX)]

    assert [(how.kv_type, how.flash_attention) for how in steps[:3]] == [
        ("f16", False), ("q8_0", True), ("q4_0", True),
    ]  # fmt: skip


def test_where_all_are_slow_the_fastest_is_named():
    of = choose(CATALOGUE, replace(board("pi5-8gb"), min_tokens_per_s=50), Wishes())

    assert of.plans == ()
    assert of.slow[0].decode_tokens_per_s == max(each.decode_tokens_per_s for each in of.slow)
    assert of.reason.startswith(f"Nothing is fast enough; {of.slow[0].title} comes nearest")


def test_where_nothing_fits_the_reason_has_the_numbers():
    of = choose(CATALOGUE, replace(board("pi5-8gb"), memory_bytes=GIB), Wishes())

    assert of.plans == of.slow == ()
    assert of.reason.startswith("Nothing fits. phi-4 Q8_0 needs 15,")
    assert "more than the 1,024 MiB of" in of.reason


def test_a_machine_smaller_than_what_is_kept_for_its_system_has_nothing():
    of = choose(CATALOGUE, replace(board("pi5-8gb"), memory_bytes=-52 * MIB), Wishes())

    assert "more than the 0 MiB of" in of.reason


def test_what_gives_way_first_is_the_caches_type_then_its_size_then_context():
    machine = board("jetson-agx-orin-64gb")
    plan = plan_for("phi-3-mini-128k-instruct", "Q4_K_M", machine, Wishes(slots=4, ctx=16384))

    steps = [step for _, step in _ladder(plan, machine, MIN_CTX)]

    assert steps == [
        None,
        "q8_0 cache instead of f16",
        "q4_0 cache instead of q8_0",
        "32768 tokens of all prompts together instead of 65536",
        "16384 tokens of all prompts together instead of 32768",
        "8192 tokens a prompt instead of 16384",
        "4096 tokens a prompt instead of 8192",
    ]
    assert {smaller.how.slots for smaller, _ in _ladder(plan, machine, MIN_CTX)} == {4}


def test_another_model_goes_before_a_context_below_what_was_promised():
    machine = board("pi5-8gb")
    plans = choice("pi5-8gb").plans
    first = plans[0]
    least_of_first = min(needed(plan, machine) for plan, _ in _ladder(first, machine, MIN_CTX))

    # Just too little for the best in Q4_K_M at 4096 tokens.
    less = admit(plans, replace(machine, memory_bytes=least_of_first - 1))
    assert isinstance(less, Admitted)
    assert less.plan.candidate is not first.candidate
    assert less.plan.how.ctx >= MIN_CTX
    assert less.steps[0] == f"{less.plan.title} instead of {first.title}"

    # And for any other at 4096.
    least = min(
        needed(smaller, machine) for plan in plans for smaller, _ in _ladder(plan, machine, MIN_CTX)
    )
    short = admit(plans, replace(machine, memory_bytes=least - 1))
    assert isinstance(short, Admitted)
    assert FALLBACK_CTX <= short.plan.how.ctx < MIN_CTX


def test_a_shortfall_says_what_is_needed_and_what_there_is():
    machine = replace(board("pi5-8gb"), memory_bytes=GIB, limited_by="memory.max of /edged")

    short = admit(choice("pi5-8gb").plans, machine)

    assert isinstance(short, Shortfall)
    assert short.available_bytes == GIB
    assert short.needed_bytes > 2 * GIB
    assert f"{short.needed_bytes / MIB:,.0f} MiB at the least" in str(short)
    assert "1,024 MiB are available (memory.max of /edged)" in str(short)


def test_layers_leave_a_gpu_that_others_have_filled():
    machine = board("rtx3060-12gb")
    best = choice("rtx3060-12gb").plans[0]

    admitted = admit([best], replace(machine, gpu_bytes=4 * GIB))

    assert isinstance(admitted, Admitted)
    assert 0 < admitted.plan.how.gpu_layers < 41
    assert admitted.plan.memory.gpu.total_bytes <= 4 * GIB
    assert "layers on the GPU instead of" in admitted.steps[-1]


# Properties, on machines of any size with and without a GPU, unified or not. Few candidates,
# each of another kind: 40 layers, tied, full attention, experts.
FEW = [
    candidate("phi-4", "Q4_0"),
    candidate("phi-4-mini-instruct", "Q4_0"),
    candidate("phi-4-mini-instruct", "Q8_0"),
    candidate("phi-3-mini-4k-instruct", "Q4_K_M"),
    candidate("phi-3.5-moe-instruct", "Q4_0"),
]
sizes = st.integers(1 * GIB, 48 * GIB)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    gpu = draw(st.sampled_from(["none", "unified", "discrete"]))
    return Machine(
        memory_bytes=draw(sizes),
        limited_by="this test",
        isa=draw(st.sampled_from([(), ("neon", "dotprod"), ("avx2",)])),
        bytes_per_s=draw(st.floats(2e9, 1e11)),
        threads_prefill=4,
        threads_decode=4,
        ubatch_tokens=draw(st.sampled_from([64, 512])),
        slots_max=draw(st.sampled_from([1, 2, 4])),
        min_tokens_per_s=draw(st.sampled_from([1, 3])),
        gpu_bytes=draw(st.integers(2 * GIB, 24 * GIB)) if gpu == "discrete" else 0,
        gpu_bytes_per_s=0 if gpu == "none" else draw(st.floats(3e10, 4e11)),
    )


few = settings(max_examples=30, deadline=None)


@few
@given(machines())
def test_what_fits_never_exceeds_a_memory(machine: Machine):
    for plan in choose(FEW, machine, Wishes()).plans:
        assert plan.memory.gpu.total_bytes <= (machine.gpu_bytes or machine.memory_bytes)
        assert needed(plan, machine) <= machine.memory_bytes
        assert plan.decode_tokens_per_s >= machine.min_tokens_per_s
        assert plan.how.ctx >= MIN_CTX
        assert plan.how.slots == machine.slots_max
        assert plan.how.ctx <= plan.how.cells <= plan.how.ctx * plan.how.slots


@few
@given(machines(), st.integers(0, 16 * GIB), st.integers(0, 16 * GIB))
def test_more_memory_never_gives_a_worse_model(machine: Machine, more: int, more_gpu: int):
    larger = replace(
        machine,
        memory_bytes=machine.memory_bytes + more,
        gpu_bytes=machine.gpu_bytes + more_gpu if machine.gpu_bytes else 0,
    )
    before = choose(FEW, machine, Wishes()).plans
    after = choose(FEW, larger, Wishes()).plans

    if before:
        assert after
        assert after[0].candidate.rank >= before[0].candidate.rank


@few
@given(machines())
def test_no_step_down_needs_more_than_the_one_before(machine: Machine):
    for plan in choose(FEW, machine, Wishes()).plans:
        last = plan
        for smaller, _ in _ladder(plan, machine, FALLBACK_CTX):
            assert smaller.memory.gpu.total_bytes <= last.memory.gpu.total_bytes
            if smaller.how.gpu_layers == last.how.gpu_layers:
                assert smaller.memory.host.total_bytes <= last.memory.host.total_bytes
            last = smaller


@few
@given(machines(), sizes, sizes)
def test_what_is_admitted_fits_what_there_is_now(machine: Machine, left: int, left_gpu: int):
    plans = choose(FEW, machine, Wishes()).plans
    if not plans:
        return
    gpu = min(left_gpu, machine.gpu_bytes) if machine.gpu_bytes else 0
    now = replace(machine, memory_bytes=min(left, machine.memory_bytes), gpu_bytes=gpu)

    result = admit(plans, now)

    if isinstance(result, Admitted):
        assert fits(result.plan, now)
        assert bool(result.steps) is not fits(plans[0], now)
    else:
        assert result.needed_bytes > result.available_bytes
