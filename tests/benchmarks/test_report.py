"""Medians, tails, ratios and goals of a benchmark's result."""

import json

import pytest

from benchmarks import report
from benchmarks.goals import GOALS
from benchmarks.samples import Sample


def goal(text):
    return next(goal for goal in GOALS if goal.text == text)


def test_a_result_has_flat_keys_and_the_bad_end_as_tail():
    samples = [
        *(Sample("login_ms", "direct", value) for value in (100, 200, 300)),
        *(Sample("login_ms", "sluice", value) for value in (50, 100, 150)),
        *(Sample("download_mb_s", "direct", value) for value in (100, 200, 300)),
    ]
    result = report.summarize(samples)
    assert result["login_ms.sluice.p50"] == 100
    assert result["login_ms.sluice.ratio_direct"] == 0.5
    assert result["login_ms.sluice.p95"] == 145
    assert result["login_ms.sluice.n"] == 3
    assert result["download_mb_s.direct.p95"] == 110


def test_a_cut_is_as_slow_as_its_last_socket():
    result = report.summarize(
        Sample("cut_deadline_ms", "sluice", value) for value in (3.0, 4.0, 19.0)
    )
    assert result["cut_deadline_ms.sluice.most"] == 19
    assert goal("cut by deadline, last socket, ms").judge(result) == ("19.00", True)


@pytest.mark.parametrize(
    ("text", "sluice", "met"),
    [
        ("log-in, x direct", 50.0, True),
        ("log-in, x direct", 51.0, False),
        ("download, x direct", 100.0, True),
        ("download, x direct", 99.0, False),
    ],
)
def test_a_goal_is_judged_in_its_own_direction(text, sluice, met):
    metric = "login_ms" if text.startswith("log-in") else "download_mb_s"
    result = {f"{metric}.direct.p50": 100.0, f"{metric}.sluice.p50": sluice}
    assert goal(text).judge(result)[1] is met


def test_a_goal_that_was_not_measured_is_not_met_either():
    assert goal("log-in, pooled, x direct").judge({}) == ("", None)


def test_the_history_keeps_every_result(tmp_path):
    history = tmp_path / "history.jsonl"
    report.keep(history, {"login_ms.sluice.p50": 1.0})
    report.keep(history, {"login_ms.sluice.p50": 2.0})
    kept = [json.loads(line) for line in history.read_text().splitlines()]
    assert [entry["login_ms.sluice.p50"] for entry in kept] == [1.0, 2.0]


def test_a_comparison_marks_what_became_worse():
    def rows(now):
        before = {"login_ms.sluice.p50": 100.0, "download_mb_s.sluice.p50": 100.0}
        table = report.compare(now, before)
        return list(table.columns[3].cells)

    same = rows({"login_ms.sluice.p50": 100.0, "download_mb_s.sluice.p50": 100.0})
    assert not [cell for cell in same if "WORSE" in cell]
    worse = rows({"login_ms.sluice.p50": 120.0, "download_mb_s.sluice.p50": 80.0})
    assert len([cell for cell in worse if "WORSE" in cell]) == 2
