"""The story: the product's main job in eight steps, each a real action from outside.

Everything goes through the front door, portal and SSH, as people do it; nothing is read
from the database. A step holds when everything it checks is so, and the first one that
does not ends the story.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
import paramiko
from websockets.exceptions import WebSocketException

from jumpserver.demo import story_access, story_evidence, story_recovery, story_sessions
from jumpserver.demo.processes import DemoRefusedError
from jumpserver.demo.scene import Finding, Scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story."""

    number: int
    title: str
    play: Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What came of a step; `failure` is empty when it holds."""

    step: Step
    findings: tuple[Finding, ...]
    failure: str
    milliseconds: int

    @property
    def holds(self) -> bool:
        """Say whether everything was as promised."""
        return not self.failure


STEPS = (
    Step(1, "Ask", story_access.request_access),
    Step(2, "Decide", story_access.decide),
    Step(3, "Connect and work", story_sessions.work),
    Step(4, "Watch, and what no conduit permits", story_access.watch),
    Step(5, "Revoke, and the deadline", story_sessions.end),
    Step(6, "Prove the credential dead", story_evidence.prove_dead),
    Step(7, "Audit", story_evidence.audit),
    Step(8, "Survive kill -9", story_recovery.survive_kill),
)

# What a product that does not do its job makes of the clients; anything else is a fault
# of the story itself and ends it with a traceback.
_DOES_NOT_HOLD = (
    AssertionError,
    LookupError,
    ValueError,
    OSError,
    httpx2.HTTPError,
    WebSocketException,
    paramiko.SSHException,
    DemoRefusedError,
)


def play(scene: Scene, *, begin: Callable[[Step], None]) -> Iterator[StepResult]:
    """Play the steps one by one, the last one yielded being the one that failed."""
    for step in STEPS:
        begin(step)
        scene.findings = []
        started = time.monotonic()
        failure = ""
        try:
            step.play(scene)
        except _DOES_NOT_HOLD as error:
            logger.debug("step %d does not hold", step.number, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        yield StepResult(
            step=step,
            findings=tuple(scene.findings),
            failure=failure,
            milliseconds=round((time.monotonic() - started) * 1000),
        )
        if failure:
            return
