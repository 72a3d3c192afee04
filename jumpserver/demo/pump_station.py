"""A small physical simulation of a pump station: two tanks, three pumps, alarms.

Raw water flows into tank A through an inlet valve that closes as A rises, the
pumps lift it from A to B, and B drains into the network by gravity. Without an
operator it settles; with one pump too few or too many it raises alarms. Nothing
is random: the same steps give the same plant.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

INLET_AT_EMPTY = 0.50  # % of the tank per second, valve fully open
LIFT_PER_PUMP = 0.14  # % per second at rated speed
DRAIN_AT_FULL = 0.40  # % per second, falls with the root of the level
RATED_RPM = 1480.0
RATED_KILOWATTS = 11.8
RUN_UP_SECONDS = 3.0
VIBRATION_PERIOD_SECONDS = 150.0
OVERFILL_TRIP_LEVEL = 98.0
HISTORY_SECONDS = 600
KEPT_ALARMS = 50


class Severity(Enum):
    """How soon somebody has to act (ISA-18.2 speaks of priorities)."""

    CRITICAL = "CRIT"
    HIGH = "HIGH"
    MEDIUM = "MED"


@dataclass(slots=True)
class Pump:
    """One pump between the tanks; it follows its affinity laws."""

    tag: str
    is_running: bool = False
    rpm: float = 0.0

    @property
    def kilowatts(self) -> float:
        """Power taken: falls with the cube of the speed."""
        return RATED_KILOWATTS * (self.rpm / RATED_RPM) ** 3

    def step(self, seconds: float) -> None:
        """Run up or down towards the commanded state."""
        change = RATED_RPM / RUN_UP_SECONDS * seconds
        if self.is_running:
            self.rpm = min(RATED_RPM, self.rpm + change)
        else:
            self.rpm = max(0.0, self.rpm - change)


@dataclass(slots=True)
class Alarm:
    """One alarm from its rise to its clearing; times are aware UTC."""

    text: str
    severity: Severity
    raised_at: datetime
    acknowledged_by: str = ""
    cleared_at: datetime | None = None

    @property
    def state(self) -> str:
        """Return the word of the alarm list: NEW, ACK, RTN (gone unseen) or CLR."""
        if self.cleared_at is None:
            return "ACK" if self.acknowledged_by else "NEW"
        return "CLR" if self.acknowledged_by else "RTN"

    @property
    def needs_acknowledging(self) -> bool:
        """Return True while nobody has said that they saw it."""
        return not self.acknowledged_by


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of history: levels in percent, vibration in mm/s."""

    tank_a: float
    tank_b: float
    vibration: float


@dataclass(slots=True)
class PumpStation:
    """The state that every operator's screen shows, like on a real HMI."""

    started_at: datetime
    tank_a: float = 74.2
    tank_b: float = 38.9
    pumps: tuple[Pump, Pump, Pump] = field(
        default_factory=lambda: (
            Pump("P-101", is_running=True, rpm=RATED_RPM),
            Pump("P-102", is_running=True, rpm=RATED_RPM),
            Pump("P-103"),
        )
    )
    vibration: float = 2.6
    inflow: float = 0.0
    lift: float = 0.0
    outflow: float = 0.0
    message: str = ""
    alarms: deque[Alarm] = field(default_factory=lambda: deque(maxlen=KEPT_ALARMS))
    history: deque[Sample] = field(
        default_factory=lambda: deque(maxlen=HISTORY_SECONDS)
    )
    seconds: float = 0.0
    p102_seconds: float = 0.0

    def step(self, seconds: float, *, now: datetime) -> None:
        """Advance the plant by `seconds` (at most a few) to the time `now`."""
        self.seconds += seconds
        for pump in self.pumps:
            pump.step(seconds)
        speed = sum(pump.rpm for pump in self.pumps) / RATED_RPM
        daily = 1 + 0.15 * math.sin(self.seconds / 40)
        self.inflow = INLET_AT_EMPTY * (1 - self.tank_a / 100)
        self.lift = LIFT_PER_PUMP * speed if self.tank_a > 1 else 0.0
        self.outflow = DRAIN_AT_FULL * math.sqrt(max(self.tank_b, 0) / 100) * daily
        self.tank_a = _percent(self.tank_a + (self.inflow - self.lift) * seconds)
        self.tank_b = _percent(self.tank_b + (self.lift - self.outflow) * seconds)
        self._shake(seconds)
        self._check_alarms(now)
        self.history.append(Sample(self.tank_a, self.tank_b, self.vibration))

    def toggle_pump(self, number: int, *, by: str) -> None:
        """Start or stop pump `number` (1 to 3) at the wish of the person `by`."""
        pump = self.pumps[number - 1]
        if not pump.is_running and self.tank_b >= OVERFILL_TRIP_LEVEL:
            self.message = f"{pump.tag} start refused: tank B overfill"
            return
        pump.is_running = not pump.is_running
        verb = "started" if pump.is_running else "stopped"
        self.message = f"{pump.tag} {verb} by {by}"

    def acknowledge_oldest(self, *, by: str) -> Alarm | None:
        """Acknowledge the alarm that waits longest; None if none waits."""
        for alarm in self.alarms:
            if alarm.needs_acknowledging:
                alarm.acknowledged_by = by
                self.message = f"{alarm.text}: acknowledged by {by}"
                return alarm
        self.message = "No alarm waits to be acknowledged"
        return None

    def waiting_alarms(self) -> int:
        """Return how many alarms nobody has acknowledged."""
        return sum(alarm.needs_acknowledging for alarm in self.alarms)

    def tags(self) -> dict[str, str]:
        """Return the current tag values as text with their unit."""
        values = {
            "LT-A.level": f"{self.tank_a:.1f} %",
            "LT-B.level": f"{self.tank_b:.1f} %",
            "FT-IN.flow": f"{self.inflow:.3f} %/s",
            "FT-OUT.flow": f"{self.outflow:.3f} %/s",
        }
        for pump in self.pumps:
            values[f"{pump.tag}.state"] = "RUN" if pump.is_running else "STOP"
            values[f"{pump.tag}.speed"] = f"{pump.rpm:.0f} rpm"
            values[f"{pump.tag}.power"] = f"{pump.kilowatts:.1f} kW"
        values["P-102.vibration"] = f"{self.vibration:.1f} mm/s"
        values["ALARMS.waiting"] = str(self.waiting_alarms())
        return values

    def _shake(self, seconds: float) -> None:
        """Let the bearing of P-102 build up a resonance and calm down again."""
        pump = self.pumps[1]
        if pump.is_running:
            self.p102_seconds += seconds
        swing = math.sin(2 * math.pi * self.p102_seconds / VIBRATION_PERIOD_SECONDS)
        self.vibration = pump.rpm / RATED_RPM * (2.6 + 4.9 * max(0.0, swing) ** 2)

    def _check_alarms(self, now: datetime) -> None:
        for rule in ALARM_RULES:
            active = next(
                (
                    alarm
                    for alarm in self.alarms
                    if alarm.text == rule.text and alarm.cleared_at is None
                ),
                None,
            )
            if active is None and rule.rises(self):
                self.alarms.append(Alarm(rule.text, rule.severity, raised_at=now))
            elif active is not None and rule.clears(self):
                active.cleared_at = now
        if self.tank_b >= OVERFILL_TRIP_LEVEL and any(
            pump.is_running for pump in self.pumps
        ):
            for pump in self.pumps:
                pump.is_running = False
            self.message = "Interlock: all pumps stopped, tank B overfill"


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When an alarm rises and when it clears; the gap between keeps it calm."""

    text: str
    severity: Severity
    rises: Callable[[PumpStation], bool]
    clears: Callable[[PumpStation], bool]


ALARM_RULES = (
    AlarmRule(
        "Tank A level low",
        Severity.MEDIUM,
        lambda station: station.tank_a < 20,
        lambda station: station.tank_a > 25,
    ),
    AlarmRule(
        "Tank A level high",
        Severity.HIGH,
        lambda station: station.tank_a > 90,
        lambda station: station.tank_a < 85,
    ),
    AlarmRule(
        "Tank B level low",
        Severity.MEDIUM,
        lambda station: station.tank_b < 40,
        lambda station: station.tank_b > 42,
    ),
    AlarmRule(
        "Tank B level high",
        Severity.HIGH,
        lambda station: station.tank_b > 90,
        lambda station: station.tank_b < 85,
    ),
    AlarmRule(
        "Tank B overfill trip",
        Severity.CRITICAL,
        lambda station: station.tank_b >= OVERFILL_TRIP_LEVEL,
        lambda station: station.tank_b < 90,
    ),
    AlarmRule(
        "P-102 vibration high",
        Severity.HIGH,
        lambda station: station.vibration >= 7.1,
        lambda station: station.vibration < 6.0,
    ),
)


def _percent(level: float) -> float:
    return min(100.0, max(0.0, level))
