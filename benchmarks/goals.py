"""What the gateway is meant to reach, judged by one result.

Times are to be at most, speeds at least, so many times another system's in the same
run, with recording, encryption and chaining on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Result = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table of goals."""

    text: str
    value: Callable[[Result], float]
    limit: float
    at_least: bool = False

    def judge(self, result: Result) -> tuple[str, bool | None]:
        """Return the value as text, and whether the goal is met; None: not measured."""
        try:
            value = self.value(result)
        except KeyError:
            return "", None
        met = value >= self.limit if self.at_least else value <= self.limit
        return f"{value:.2f}", met


def _number(result: Result, key: str) -> float:
    return float(result[key])


def _of(key: str) -> Callable[[Result], float]:
    return lambda result: _number(result, key)


def _ratio(metric: str, base: str, system: str = "sluice") -> Callable[[Result], float]:
    return lambda result: (
        _number(result, f"{metric}.{system}.p50")
        / _number(result, f"{metric}.{base}.p50")
    )


def _echo_above_direct(result: Result) -> float:
    return _number(result, "echo_ms.sluice.p50") - _number(result, "echo_ms.direct.p50")


def _largest_fleet(result: Result) -> str:
    found = [key for key in result if key.startswith("echo_at_")]
    if not found:
        raise KeyError("echo_at")
    return found[0].split(".")[0]


def _fleet_p99(result: Result) -> float:
    return _number(result, f"{_largest_fleet(result)}.sluice.p99")


def _last_closed(how: str) -> Callable[[Result], float]:
    return lambda result: _number(result, f"cut_{how}_ms.sluice.most")


GOALS: tuple[Goal, ...] = (
    Goal("log-in, x direct", _ratio("login_ms", "direct"), 0.5),
    Goal("log-in, x ssh -J", _ratio("login_ms", "jump"), 0.3),
    Goal("log-in, pooled, x direct", _ratio("login_pooled_ms", "direct"), 0.2),
    Goal("key echo p50, x ssh -J", _ratio("echo_ms", "jump"), 1.0),
    Goal("key echo p50, ms above direct", _echo_above_direct, 0.15),
    Goal("key echo p99, ms", _of("echo_ms.sluice.p99"), 1.5),
    Goal("download, x direct", _ratio("download_mb_s", "direct"), 1.0, at_least=True),
    Goal("download, x ssh -J", _ratio("download_mb_s", "jump"), 1.7, at_least=True),
    Goal("upload, x direct", _ratio("upload_mb_s", "direct"), 0.9, at_least=True),
    Goal("upload, x ssh -J", _ratio("upload_mb_s", "jump"), 1.7, at_least=True),
    Goal(
        "terminal flood, x direct", _ratio("flood_mb_s", "direct"), 1.0, at_least=True
    ),
    Goal("SFTP get, x direct", _ratio("sftp_get_mb_s", "direct"), 0.7, at_least=True),
    Goal("SFTP get, x ssh -J", _ratio("sftp_get_mb_s", "jump"), 1.1, at_least=True),
    Goal("SFTP put, x direct", _ratio("sftp_put_mb_s", "direct"), 0.7, at_least=True),
    Goal("SFTP put, x ssh -J", _ratio("sftp_put_mb_s", "jump"), 1.1, at_least=True),
    Goal("forward, x ssh -J", _ratio("forward_mb_s", "jump"), 0.9, at_least=True),
    Goal("gateway CPU, s per GB down", _of("cpu_s_per_gb.sluice.p50"), 1.2),
    Goal("memory, KB per idle session", _of("rss_kb_per_session.sluice.p50"), 100),
    Goal("echo p99 with all sessions typing, ms", _fleet_p99, 50),
    Goal("cut by deadline begins, ms", _of("cut_deadline_begins_ms.sluice.p50"), 5),
    Goal("cut by deadline, last socket, ms", _last_closed("deadline"), 20),
    Goal("cut by revocation begins, ms", _of("cut_revocation_begins_ms.sluice.p50"), 5),
    Goal("cut by revocation, last socket, ms", _last_closed("revocation"), 20),
)
