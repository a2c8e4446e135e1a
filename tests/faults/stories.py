"""The faults: each is a story told to a scene, over and over, and says how often it struck.

A story that kills names the step and the moment of each kill; between two kills the archive must verify, rows and all.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from tests.archive.checks import eventually
from tests.faults.points import EXPLAIN, Fault, Moment
from tests.faults.proxy import Mood, Proxy
from tests.faults.scene import SESSION_TIMEOUT_S, Scene
from tests.faults.worker import Worker
from tests.parts.kafka import Kafka

BATCH: Final = 12
OBJECTS: Final = 3
"""Of a commit: the records lie on three days."""

MOMENTS: Final[tuple[Moment, ...]] = ("before", "after")
SINK_STEPS: Final = [
    *(Fault("object", moment, nth) for nth, moment in product(range(OBJECTS), MOMENTS)),
    *(Fault(point, moment) for point, moment in product(("decode", "entry", "committed to Kafka"), MOMENTS)),
]
EXPLAIN_STEPS: Final = [Fault(point, moment, nth) for point, moment, nth in product(EXPLAIN, MOMENTS, (0, 2))]
KILLED: Final = -signal.SIGKILL


@dataclass(frozen=True)
class Stage:
    """What a story may use besides its scene."""

    kafka: Kafka
    proxy: Proxy
    random: random.Random


Story = Callable[[Scene, Stage, int], int]


def killed_at_every_step_of_the_sink(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker("sink", instance_id="sink-0")
    for fault in _in_turn(stage, SINK_STEPS, runs):
        _die(scene, worker, fault, lambda: scene.send_audits(BATCH, again=BATCH // 2))
    worker.start()
    return runs


def killed_at_every_step_of_explaining(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker(instance_id="worker-0", batch_max_slates="4", batches_in_flight="2")
    for fault in _in_turn(stage, EXPLAIN_STEPS, runs):
        _die(scene, worker, fault, lambda: scene.send_impressions(BATCH))
    worker.start()
    return runs


def killed_at_any_moment(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker(instance_id="worker-0", batch_max_slates="4", batches_in_flight="2")
    for number in range(runs):
        worker.start()
        scene.send_impressions(BATCH)
        if number % 3 == 0:
            worker.waits_for("partitions assigned", _lives(worker, "partitions assigned") + 1)
        time.sleep(stage.random.uniform(0.0, 1.5))
        worker.kill()
        _must_be_sound(scene)
    worker.start()
    return runs


def asked_to_end_in_mid_batch(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker(instance_id="worker-0", batch_max_slates="2", batches_in_flight="2")
    for _ in range(runs):
        before = scene.rows()
        worker.start()
        scene.send_impressions(4 * BATCH)
        assert eventually(lambda before=before: scene.rows() > before), worker.last_words()
        assert worker.end() == 0, worker.last_words()
        _must_be_sound(scene)
    worker.start()
    return runs


def joining_and_leaving_in_a_storm(scene: Scene, stage: Stage, runs: int) -> int:
    workers = [scene.worker(batch_max_slates="4") for _ in range(4)]
    for _ in range(runs):
        worker = stage.random.choice(workers)
        if worker.runs:
            (worker.kill if stage.random.random() < 0.3 else worker.end)()
        else:
            worker.start()
        scene.send_impressions(BATCH // 3)
        time.sleep(stage.random.uniform(0.0, 2.0))
        _must_be_sound(scene)
    if not _running(workers):
        workers[0].start()
    return runs


def frozen_and_woken_as_a_zombie(scene: Scene, stage: Stage, runs: int) -> int:
    frozen, heir = (scene.worker(batch_max_slates="4") for _ in range(2))
    frozen.start()
    for _ in range(runs):
        scene.send_impressions(BATCH)
        assert scene.archived(), frozen.last_words()
        scene.send_impressions(BATCH)
        time.sleep(stage.random.uniform(0.0, 0.3))
        frozen.signal(signal.SIGSTOP)
        heir.start()
        # Past the session timeout the group gives its partitions to the other one.
        assert scene.archived(), heir.last_words()
        scene.send_impressions(BATCH)
        frozen.signal(signal.SIGCONT)
        scene.send_impressions(BATCH)
        assert scene.archived(), heir.last_words()
        _must_be_sound(scene)
        heir.end()
    return runs


def a_broker_that_is_killed_and_comes_back(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker(instance_id="worker-0", batch_max_slates="4")
    worker.start()
    for _ in range(runs):
        scene.send_impressions(BATCH)
        time.sleep(stage.random.uniform(0.0, 1.0))
        stage.kafka.kill()
        time.sleep(stage.random.uniform(0.0, 1.5 * SESSION_TIMEOUT_S))
        stage.kafka.start()
        scene.send_impressions(BATCH)
        _start_again_if_ended(worker)
        assert scene.archived(), worker.last_words()
        _must_be_sound(scene)
    return runs


def _store_that_is(mood: Mood, *, only: bytes | None = b"PUT ") -> Story:
    def story(scene: Scene, stage: Stage, runs: int) -> int:
        worker = scene.worker("sink", instance_id="sink-0")
        worker.start()
        struck = 0
        for _ in range(runs):
            stage.proxy.only = only
            stage.proxy.mood = mood
            before = stage.proxy.hits
            scene.send_audits(BATCH)
            assert eventually(lambda before=before: stage.proxy.hits > before), worker.last_words()
            time.sleep(stage.random.uniform(0.0, 2.0))
            stage.proxy.mood = "well"
            struck += stage.proxy.hits - before
            assert scene.archived(), worker.last_words()
            _must_be_sound(scene)
        return struck

    return story


def away_when_partitions_are_opened(scene: Scene, stage: Stage, runs: int) -> int:
    for _ in range(runs):
        worker = scene.worker("sink", instance_id="sink-0")
        scene.send_audits(BATCH)
        stage.proxy.only, stage.proxy.mood = None, "refusing"
        worker.start()
        worker.waits_for("can't be continued yet")
        stage.proxy.mood = "well"
        assert scene.archived(), worker.last_words()
        worker.kill()
    worker.start()
    return runs


def a_full_disk(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker("sink", instance_id="sink-0")
    worker.log = scene.folder / "unseen"
    worker.start()
    scene.send_audits(BATCH)
    assert scene.archived()
    for _ in range(runs):
        before = scene.rows()
        worker.fill_the_disk(full=True)
        scene.send_audits(BATCH)
        time.sleep(stage.random.uniform(0.5, 1.5))
        assert scene.rows() == before, "it wrote to a disk that is full"
        _must_be_sound(scene)
        worker.fill_the_disk(full=False)
        assert scene.archived()
    return runs


def slow_in_every_step(scene: Scene, stage: Stage, runs: int) -> int:
    for point in ("decode", "object", "answer", "send audits")[:runs]:
        worker = scene.worker(instance_id="worker-0", batch_max_slates="8")
        worker.start(Fault(point, what="dawdle"))
        scene.send_impressions(4 * BATCH)
        assert scene.archived(), worker.last_words()
        worker.end()
    worker.start()
    return runs


def a_defect_in_either_agent(scene: Scene, stage: Stage, runs: int) -> int:
    worker = scene.worker(instance_id="worker-0", batch_max_slates="4", batches_in_flight="2")
    faults = [
        Fault(point, moment, what="raise")
        for point in ("decode", "entry", "answer", "send audits", "send explanations", "acknowledge")
        for moment in MOMENTS
    ]
    for fault in _in_turn(stage, faults, runs):
        worker.start(fault)
        scene.send_impressions(BATCH)
        assert worker.wait() == 1, worker.last_words()
        _must_be_sound(scene)
    worker.start()
    return runs


Where = Literal["folder", "s3", "proxy"]


@dataclass(frozen=True)
class Told:
    """A story, where its archive lies, and how often it strikes in a full run."""

    story: Story
    where: Where
    runs: int


STORIES: Final[dict[str, Told]] = {
    "kill -9 at each step of the sink, folder": Told(killed_at_every_step_of_the_sink, "folder", 72),
    "kill -9 at each step of the sink, S3": Told(killed_at_every_step_of_the_sink, "s3", 72),
    "kill -9 at each step of explaining": Told(killed_at_every_step_of_explaining, "folder", 64),
    "kill -9 at any moment": Told(killed_at_any_moment, "s3", 60),
    "SIGTERM in mid-batch": Told(asked_to_end_in_mid_batch, "s3", 12),
    "four workers join, leave and die": Told(joining_and_leaving_in_a_storm, "s3", 48),
    "frozen, and woken as a zombie": Told(frozen_and_woken_as_a_zombie, "s3", 4),
    "broker killed and back": Told(a_broker_that_is_killed_and_comes_back, "folder", 5),
    "S3 answers 500": Told(_store_that_is("failing"), "proxy", 5),
    "S3 answers 503 to everything": Told(_store_that_is("unavailable", only=None), "proxy", 5),
    "S3 refuses connections": Told(_store_that_is("refusing", only=None), "proxy", 5),
    "S3 hangs": Told(_store_that_is("hanging"), "proxy", 3),
    "S3 cuts uploads short": Told(_store_that_is("cutting"), "proxy", 5),
    "S3's answers are lost": Told(_store_that_is("deaf"), "proxy", 8),
    "S3 away as partitions are opened": Told(away_when_partitions_are_opened, "proxy", 3),
    "disk full": Told(a_full_disk, "folder", 6),
    "slow in every step": Told(slow_in_every_step, "s3", 4),
    "exceptions in the agents": Told(a_defect_in_either_agent, "folder", 20),
}


def _in_turn(stage: Stage, faults: list[Fault], runs: int) -> list[Fault]:
    """Take each as often as any other, in random order."""
    drawn: list[Fault] = []
    while len(drawn) < runs:
        drawn += stage.random.sample(faults, len(faults))
    return drawn[:runs]


def _die(scene: Scene, worker: Worker, fault: Fault, send: Callable[[], None]) -> None:
    send()
    worker.start(fault)
    assert worker.wait() == KILLED, f"{fault} did not strike: {worker.last_words()}"
    _must_be_sound(scene)


def _must_be_sound(scene: Scene) -> None:
    findings = scene.sound()
    assert not findings, findings


def _running(workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.runs]


def _lives(worker: Worker, words: str) -> int:
    return worker.log.read_text(errors="replace").count(words) if worker.log.exists() else 0


def _start_again_if_ended(worker: Worker) -> None:
    if not worker.runs:
        worker.start()
