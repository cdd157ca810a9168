"""``edged simulate --real-engine``: a real broker, daemon and worker on a simulated board."""

import json

from click.testing import CliRunner

from edged.cli.main import cli

AMBIENT = "40:1200@0.07:-900@0.15:20@0.25"
"""It heats by some 4 °C a second, whatever the worker adds; five seconds later it cools as fast."""


def test_streams_stay_whole_from_nominal_to_paused_and_back() -> None:
    arguments = ["simulate", "--real-engine", "--ambient", AMBIENT, "--minutes", "0.9"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    seen = json.loads(result.stdout)

    levels = [each["level"] for each in seen["levels"]]
    assert (levels[0], "paused" in levels, levels[-1]) == ("nominal", True, "nominal")
    assert (seen["streams_torn"], seen["failed"]) == ([], {})
    # The two that are under way at the end are nobody's fault.
    assert seen["streams_whole"] >= seen["prompts_asked"] - 2 > 0
    # Nothing but the ambient takes the true board above its limit; and the state knows.
    assert 80 < seen["peak_c"] < 105
    assert seen["furthest_from_the_truth_c"] < 1.5
