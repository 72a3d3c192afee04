"""The benchmark runs, measures all systems, and says what it measured."""

import json
import subprocess
import sys

import pytest

from benchmarks import report
from benchmarks.__main__ import TRACKED, parse
from benchmarks.processes import ROOT
from benchmarks.samples import QUICK, Sample, in_turn
from jumpserver.demo.sshd import choose_sshd

SYSTEMS = ("direct", "jump", "sluice")


@pytest.mark.e2e
@pytest.mark.timeout(90)
def test_a_quick_run_writes_what_it_measured(tmp_path, ssh_binary, sshd_binary):
    if choose_sshd() is None:
        pytest.skip("this user cannot run sshd with terminals here")
    result_file = tmp_path / "result.json"
    options = ["--quick", "--metric", "login", "--rounds", "1"]
    for system in SYSTEMS:
        options += ["--system", system]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--json", str(result_file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(result_file.read_bytes())
    for system in SYSTEMS:
        for stat in ("p50", "p95", "p99"):
            assert result[f"login_ms.{system}.{stat}"] > 0
        assert result[f"login_ms.{system}.n"] == 1
    assert result["login_ms.sluice.ratio_direct"] > 0
    assert result["login_ms.sluice.ratio_jump"] > 0
    assert "login_ms.direct.ratio_direct" not in result
    # One with the code, one to warm up, one measured; each recording verifies.
    assert result["recording.sluice.sessions"] == 3
    assert result["recording.sluice.recordings_verified"] == 3
    assert result["rss_mb.sluice.peak"] >= result["rss_mb.sluice.after"] > 0
    assert result["environment.fast_path"] == "on"
    assert result["environment.cpus"] >= 1
    assert "OpenSSH" in result["environment.openssh"]
    assert "login_ms" in done.stdout


def test_the_tail_is_the_bad_end():
    samples = [
        Sample(metric, "direct", float(value))
        for metric in ("login_ms", "download_mb_s")
        for value in range(101)
    ]
    result = report.summarize(samples)
    assert result["login_ms.direct.p50"] == 50
    assert result["login_ms.direct.p95"] == 95
    assert result["login_ms.direct.p99"] == 99
    assert result["download_mb_s.direct.p50"] == 50
    assert result["download_mb_s.direct.p95"] == 5
    assert result["download_mb_s.direct.p99"] == 1


def test_a_ratio_is_median_by_median():
    samples = [
        Sample("echo_ms", "direct", 2.0),
        Sample("echo_ms", "jump", 4.0),
        *(Sample("echo_ms", "sluice", value) for value in (1.0, 3.0, 90.0)),
    ]
    result = report.summarize(samples)
    assert result["echo_ms.sluice.ratio_direct"] == 1.5
    assert result["echo_ms.sluice.ratio_jump"] == 0.75
    assert result["echo_ms.jump.ratio_direct"] == 2.0


def test_a_quantile_lies_between_its_neighbours():
    assert report.quantile([10.0], 0.99) == 10
    assert report.quantile([3.0, 1.0], 0.5) == 2
    with pytest.raises(ValueError, match="no values"):
        report.quantile([], 0.5)


def test_every_system_is_first_in_some_round():
    systems = list("abc")
    rounds = [in_turn(systems, number) for number in range(3)]
    assert {turn[0] for turn in rounds} == set(systems)
    assert all(sorted(turn) == systems for turn in rounds)


def test_only_a_whole_run_replaces_the_tracked_result(tmp_path):
    assert parse([]).json_file == TRACKED
    assert parse(["--quick"]).json_file is None
    assert parse(["--metric", "echo"]).json_file is None
    assert parse(["--system", "direct"]).json_file is None
    assert not parse(["--quick"]).whole
    assert parse(["--quick", "--json", str(tmp_path / "r")]).json_file == tmp_path / "r"
    assert parse(["--quick"]).sizes == QUICK
    assert parse(["--rounds", "7"]).sizes.login_rounds == 7
    with pytest.raises(SystemExit):
        parse(["--rounds", "0"])


def test_any_other_endpoint_can_be_put_beside_the_rest():
    choice = parse(["--system", "warpgate=ssh -p 2222 -i 'a key' me@127.0.0.1"])
    (other,) = choice.others
    assert other.name == "warpgate"
    assert other.client.command("-T") == ["ssh", "-p", "2222", "-i", "a key", "-T"]
    assert other.destination == ["me@127.0.0.1"]
    with pytest.raises(SystemExit):
        parse(["--system", "warpgate"])
