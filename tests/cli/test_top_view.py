"""What ``edged top`` shows: pure rendering, held against what a person would look for."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from edged.cli.bus import Node
from edged.cli.top_facts import Sample, number, span, words
from edged.cli.top_figures import gauge, in_ascii, memory_bar, memory_parts, sparkline
from edged.cli.top_view import render

NOW_S = 1_800_000_000.0
GIB = 2**30
CARD = {
    "device": "Raspberry Pi 5 Model B Rev 1.0",
    "model": "Phi-3.5-mini-instruct",
    "quant": "Q4_0",
}
STATE: dict[str, Any] = {
    "level": "throttled",
    "reason": "cpu-thermal: held below 80 °C",
    "since": NOW_S - 250,
    "sensor": "cpu-thermal",
    "temperature_c": 76.4,
    "limit_c": 80.0,
    "forecast_c": 79.1,
    "fan_rpm": 3240,
    "clock_mhz": 2100,
    "watts": 5.2,
    "memory": {
        "available_bytes": int(3.1 * GIB),
        "total_bytes": int(7.9 * GIB),
        "worker_bytes": int(2.9 * GIB),
        "weights_bytes": int(2.1 * GIB),
        "kv_cache_bytes": int(0.5 * GIB),
    },
    "queued": 3,
    "active": 1,
    "tokens_per_s": 4.1,
    "model_state": "serving",
    "faults": [],
}
HISTORY = [Sample(NOW_S - 400 + 10 * n, 58 + 18.4 * (1 - 0.9**n)) for n in range(40)]


def online(name: str = "attic", card: object = CARD, **state: object) -> Node:
    assert isinstance(card, dict)
    return Node(name, "online", dict(card), {**STATE, **state})


def old(name: str = "cellar") -> Node:
    """As nodes were before they knew of heat."""
    memory = {"available_bytes": 3 * GIB, "worker_bytes": GIB}
    state = {"level": "nominal", "reason": None, "since": NOW_S - 60, "memory": memory}
    return Node(name, "online", {}, {**state, "queued": 0, "active": 0, "faults": []})


def offline(name: str = "shed") -> Node:
    return Node(name, "offline", dict(CARD), dict(STATE))


def shown(
    *nodes: Node,
    samples: Sequence[Sample] = (),
    width: int = 80,
    height: int | None = None,
    now_s: float = NOW_S,
    colours: bool = False,
) -> str:
    output = StringIO()
    console = Console(
        file=output,
        width=width,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
        markup=True,
    )
    history = {node.name: samples for node in nodes}
    console.print(render(nodes, history, now_s, width, height))
    return output.getvalue()


def fact(text: str, label: str) -> str:
    """What stands beside a label, its lines put together."""
    lines = [line.strip("│ ") for line in text.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith(label))
    end = start + 1
    while end < len(lines) and text.splitlines()[end].startswith("│" + 14 * " "):
        end += 1
    return "\n".join([lines[start].removeprefix(label).strip(), *lines[start + 1 : end]])


# One node


def test_the_level_has_its_reason_and_how_long() -> None:
    said = "throttled for 4 min: cpu-thermal: held below 80 °C"
    assert fact(shown(online()), "level") == said


def test_the_temperature_stands_beside_forecast_limit_and_sensor() -> None:
    said = fact(shown(online()), "temperature")
    assert "76.4 °C, forecast ◆ 79.1 °C, limit │ 80 °C (cpu-thermal)" in said


def test_the_sparkline_tells_what_was_seen() -> None:
    said = fact(shown(online(), samples=HISTORY), "temperature")
    assert "58.0 to 76.1 °C in 6 min" in said
    assert "▁" in said
    assert "█" in said.splitlines()[-2]


def test_the_board_says_what_it_does() -> None:
    assert fact(shown(online()), "board") == "fan 3,240 rpm, clock 2,100 MHz, 5.2 W"


def test_memory_is_a_bar_with_its_parts_in_numbers() -> None:
    bar, *legend = fact(shown(online()), "memory").splitlines()
    assert {*bar} == {*"█▓▒░·"}
    said = " ".join(legend)
    for part in (
        "█ weights 2.1 GiB",
        "▓ KV cache 512 MiB",
        "▒ rest of worker 307 MiB",
        "░ other 1.9 GiB",
        "· available 3.1 GiB",
        "of 7.9 GiB",
    ):
        assert part in said


def test_prompts_and_speed_are_shown() -> None:
    assert fact(shown(online()), "prompts") == "1 active, 3 waiting, 4.1 tokens/s"


def test_the_model_is_shown_with_what_it_does() -> None:
    assert fact(shown(online()), "model") == "serving Phi-3.5-mini-instruct (Q4_0)"


def test_faults_are_shown() -> None:
    faults = ["gpu-thermal: stuck at 40 °C", "model: it could not be loaded"]
    said = fact(shown(online(faults=faults)), "faults")
    assert said == "gpu-thermal: stuck at 40 °C; model: it could not be loaded"
    assert fact(shown(online()), "faults") == "none"


@pytest.mark.parametrize(
    ("level", "colour"), [("nominal", 32), ("trimmed", 36), ("throttled", 33), ("paused", 31)]
)
def test_each_level_has_its_colour(level: str, colour: int) -> None:
    assert f"\x1b[1;{colour}m{level}" in shown(online(level=level), colours=True)


def test_without_colours_there_is_no_escape_sequence() -> None:
    assert "\x1b" not in shown(online(), online("b"), offline(), samples=HISTORY)


def test_an_old_node_shows_what_it_has() -> None:
    text = shown(old())
    assert fact(text, "temperature") == "not reported"
    assert "available 3.0 GiB" in fact(text, "memory")
    assert fact(text, "prompts") == "0 active, 0 waiting, – tokens/s"
    assert "board" not in text


def test_a_node_that_said_nothing_but_that_it_is_online_is_shown() -> None:
    assert "new" in shown(Node("new", "online"))


def test_an_offline_node_is_dim_and_has_no_past() -> None:
    text = shown(offline(), samples=HISTORY)
    assert "offline" in text
    assert "Phi-3.5-mini-instruct" in text
    assert "76.4" not in text
    assert "\x1b[2moffline" in shown(offline(), colours=True)


def test_a_node_that_went_silent_says_so() -> None:
    assert "nothing heard for 45 s" in shown(online(), samples=[Sample(NOW_S - 45, 60.0)])
    assert "nothing heard" not in shown(online(), samples=[Sample(NOW_S - 12, 60.0)])


# Several nodes


def test_each_node_has_a_panel_those_online_first() -> None:
    text = shown(offline("a"), online("c"), old("b"))
    assert text.index(" b ") < text.index(" c, ") < text.index(" a, ")
    assert "offline; Phi-3.5-mini-instruct (Q4_0)" in text


def test_a_panel_has_level_heat_memory_prompts_model_and_faults() -> None:
    text = shown(online("a", faults=["cpu-thermal: jumps"]), online("b"), samples=HISTORY)
    for said in (
        "throttled for 4 min: cpu-thermal: held below 80 °C",
        "76.4 °C → 79.1 °C, limit 80 °C",
        "3.1 GiB of 7.9 GiB available",
        "1 active, 3 waiting, 4.1 tokens/s",
        "serving Phi-3.5-mini-instruct (Q4_0)",
        "faults: cpu-thermal: jumps",
    ):
        assert said in text


def test_what_has_no_room_is_named() -> None:
    nodes = [online(f"node{number}") for number in range(9)]
    text = shown(*nodes, height=23)
    assert len(text.splitlines()) <= 23
    assert "6 more (--node shows one): node3, node4" in text.splitlines()[-1]


def test_what_has_room_to_the_last_line_is_not_left_out() -> None:
    nodes = [online("a"), online("b")]
    lines = len(shown(*nodes).splitlines())
    assert "more" not in shown(*nodes, height=lines)
    assert "1 more" in shown(*nodes, height=lines - 1)


def test_on_a_wide_terminal_panels_stand_side_by_side() -> None:
    first, *_ = shown(online("a"), online("b"), width=120).splitlines()
    assert " a, " in first
    assert " b, " in first


# Any width, any words

NASTY = "[bold red]\x1b[2J\x1b]0;title\x07\u202e\r\n\t[/] \ud800 \u200b漢字 é👩‍💻" + "x" * 10_000
WORDS = ("level", "reason", "sensor", "model_state")
NUMBERS = ("since", "temperature_c", "limit_c", "forecast_c", "fan_rpm", "watts", "queued")


def hostile() -> Node:
    card = dict.fromkeys(("device", "model", "quant"), NASTY)
    return online("hostile", card, **dict.fromkeys(WORDS, NASTY), faults=[NASTY, 3, None, [NASTY]])


@pytest.mark.parametrize("width", [30, 40, 60, 80, 119, 120, 200])
@pytest.mark.parametrize(
    "nodes",
    [
        [online()],
        [hostile()],
        [old()],
        [offline()],
        [online("a"), hostile(), old(), offline(), Node("new", "online")],
    ],
    ids=["full", "hostile", "old", "offline", "many"],
)
def test_no_line_is_wider_than_the_terminal(nodes: list[Node], width: int) -> None:
    lines = shown(*nodes, samples=HISTORY, width=width).splitlines()
    assert [line for line in lines if cell_len(line) > width] == []


@pytest.mark.parametrize("nodes", [[online()], [hostile()], [online(), online("b"), offline()]])
def test_a_small_terminal_has_room_for_all(nodes: list[Node]) -> None:
    assert len(shown(*nodes, samples=HISTORY, height=23).splitlines()) <= 23


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("several", [False, True])
def test_frames_stay_whole_whatever_nodes_say(width: int, several: bool) -> None:
    nodes = [hostile(), online()] if several else [hostile()]
    for line in shown(*nodes, samples=HISTORY, width=width).splitlines():
        assert line[0] + line[-1] in ("╭╮", "││", "╰╯")
        assert cell_len(line) == width


def test_markup_is_shown_and_not_obeyed() -> None:
    text = shown(online(reason="[bold red]hot[/bold red] [/nothing]"))
    assert "[bold red]hot[/bold red] [/nothing]" in text


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2028", "\ud800"])
def test_nothing_steers_the_terminal(character: str) -> None:
    said = f"a{character}b"
    card = dict.fromkeys(CARD, said)
    node = online("x", card, **dict.fromkeys(WORDS, said), faults=[said])
    node.status = "online"
    away = Node("y", said, card)
    for text in (shown(node), shown(node, away), shown(away)):
        assert character not in text


def test_a_long_reason_is_cut_and_the_rest_stays_in_sight() -> None:
    text = shown(online(reason="hot " * 2500))
    assert "…" in fact(text, "level")
    assert fact(text, "faults") == "none"


@pytest.mark.parametrize(
    "value", [None, "hot", True, [], {}, float("nan"), float("inf"), -float("inf"), 10**400]
)
def test_what_is_no_number_is_not_shown_as_one(value: object) -> None:
    assert number(value) is None
    memory = dict.fromkeys(STATE["memory"], value)
    node = online(**dict.fromkeys(NUMBERS, value), memory=memory, tokens_per_s=value)
    assert fact(shown(node), "temperature") == "not reported"
    assert "memory" not in shown(node)
    assert "1 active, – waiting, – tokens/s" in shown(node, old())


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("value", [None, "x", -1e14, 1e14, 0, [], {}, [[]], {"a": {}}])
def test_no_single_field_can_break_the_view(name: str, value: object) -> None:
    node = online(**{name: value})
    for text in (shown(node, samples=HISTORY), shown(node, old(), samples=HISTORY)):
        assert "attic" in text


# The figures


@pytest.mark.parametrize("columns", [8, 17, 60])
@pytest.mark.parametrize("temperature_c", [-40.0, 20.0, 79.9, 80.0, 80.1, 89.9, 120.0])
def test_only_what_is_above_the_limit_stands_beyond_its_mark(
    columns: int, temperature_c: float
) -> None:
    before, after = gauge(columns, temperature_c, None, 80.0).plain.split("│")
    assert len(before) + len(after) == columns - 1
    assert ("█" in after) == (temperature_c >= 80.0)


def test_the_forecast_is_on_the_gauge_however_hot_it_is() -> None:
    assert gauge(20, 120.0, 130.0, 80.0).plain.endswith("█◆")


@pytest.mark.parametrize(("forecast_c", "is_beyond"), [(79.9, False), (80.0, True), (95.0, True)])
def test_the_forecast_stands_on_its_side_of_the_limit(forecast_c: float, is_beyond: bool) -> None:
    _, after = gauge(20, 50.0, forecast_c, 80.0).plain.split("│")
    assert ("◆" in after) == is_beyond


@pytest.mark.parametrize("columns", [8, 17, 60])
def test_the_forecast_does_not_cover_what_is_above_the_limit(columns: int) -> None:
    _, after = gauge(columns, 80.1, 80.2, 80.0).plain.split("│")
    assert after.startswith("█◆")


def test_a_gauge_without_a_limit_has_no_mark_for_it() -> None:
    assert "│" not in gauge(20, 50.0, None, None).plain


def test_a_sparkline_begins_with_what_was_seen_first_and_ends_now() -> None:
    samples = [Sample(NOW_S - 50, 50.0), Sample(NOW_S, 60.0)]
    assert sparkline(20, samples, NOW_S, None)[0].plain == "▁▁▁▁ █"


def test_a_sparkline_shows_the_newest_where_there_is_no_room_for_all() -> None:
    samples = [Sample(NOW_S - 10 * back, 50.0 + back) for back in range(30, -1, -1)]
    drawn, said = sparkline(10, samples, NOW_S, None)
    assert len(drawn) == 10
    assert said == "50.0 to 59.0 °C in 1 min"


def test_a_sparkline_has_a_gap_where_the_sensor_was_lost() -> None:
    samples = [Sample(NOW_S - 20, 50.0), Sample(NOW_S - 10, None), Sample(NOW_S, 60.0)]
    assert sparkline(20, samples, NOW_S, None)[0].plain == "▁ █"


def test_small_noise_does_not_fill_the_sparkline() -> None:
    samples = [Sample(NOW_S - 10 * back, 60.0 + back % 2 * 0.5) for back in range(9, -1, -1)]
    assert not {"▁", "█"} & {*sparkline(20, samples, NOW_S, None)[0].plain}


def test_the_memory_bar_is_as_long_as_its_room_and_in_proportion() -> None:
    parts, total_bytes = memory_parts(
        {
            "worker_bytes": 400,
            "weights_bytes": 200,
            "kv_cache_bytes": 100,
            "available_bytes": 300,
            "total_bytes": 1000,
        }
    )
    assert total_bytes is not None
    assert memory_bar(10, parts, total_bytes).plain == "██▓▒░░░···"


def test_a_worker_that_holds_less_than_its_weights_is_one_part() -> None:
    memory = {"worker_bytes": 100, "weights_bytes": 900, "available_bytes": 300}
    parts, total_bytes = memory_parts(memory)
    assert [part.name for part in parts] == ["worker"]
    assert total_bytes == 400


def test_weights_that_are_available_too_do_not_overflow_the_bar() -> None:
    memory = {"worker_bytes": 900, "available_bytes": 800, "total_bytes": 1000}
    parts, total_bytes = memory_parts(memory)
    assert total_bytes is not None
    assert memory_bar(10, parts, total_bytes).plain == "█████████·"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (5400, "1 h 30 min"), (180_000, "2 d 2 h")],
)
def test_a_span_has_the_units_that_matter(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_words_are_one_line() -> None:
    assert words("a\tb\r\n c\x00d") == "a b c d"


def test_in_ascii_every_sign_has_its_own_and_no_line_changes_its_length() -> None:
    text = shown(online("a"), offline(), samples=HISTORY) + shown(online(), samples=HISTORY)
    plain = in_ascii(text)
    assert plain.isascii()
    assert "?" not in plain
    assert [*map(len, plain.splitlines())] == [*map(len, text.splitlines())]
    assert len({*in_ascii("█▓▒░·")}) == 5


# The documentation


@pytest.mark.parametrize(
    "nodes", [[online()], [online(), old(), offline()]], ids=["one", "several"]
)
def test_the_documentation_shows_what_is_shown(nodes: list[Node]) -> None:
    lines = (Path(__file__).parents[2] / "docs/top.md").read_text().splitlines()
    indented = [line.removeprefix("    ") for line in lines if line.startswith("    ")]
    assert shown(*nodes, samples=HISTORY) in "\n".join(indented) + "\n"
