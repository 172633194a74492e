"""What Kiln counts, under the names that Prometheus is given; prefix `kiln_`, base units, nobody's id in a label.

Counters move as things happen (`CountedQueue`, the command tree); what the queue holds is read when somebody asks.
Knows no web and no Discord.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bot.queue.job import Job, JobStatus
from bot.storage.tables import AccountRow, JobRow, has_status
from gen import __version__

SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 3 * 3600, 12 * 3600)  # of a job, upper bounds
REPLIES = {JobStatus.DELIVERED: "posted", JobStatus.KEPT: "kept", JobStatus.REPLY_UNKNOWN: "unknown"}
ENDS = (*REPLIES, JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.QUARANTINED)


class Metrics:
    """Every number of one process, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the time a counter was made, of no use here
        self.registry = CollectorRegistry()
        self._worked = 0.0
        ProcessCollector(registry=self.registry)
        self._make_counters()
        self._make_gauges()
        for status in ENDS:  # a counter that is first seen at 1 has lost that 1 to every rate
            self.jobs.labels(status.value)
        for result in REPLIES.values():
            self.replies.labels(result)

    def _make_counters(self) -> None:
        self.jobs = self._counter("jobs", "Jobs that are over, by how they ended.", "state")
        self.crashes = self._counter("job_crashes", "Jobs under which the process died.")
        self.quarantined = self._counter("jobs_quarantined", "Jobs set aside because the process died twice.")
        self.rejections = self._counter("rejections", "What people asked for and did not get.", "reason")
        self.replies = self._counter("replies", "Drawn pictures, by what became of them in Discord.", "result")
        self.late = self._counter("late_results_discarded", "Results of an attempt that was over already.")
        self.busy = self._counter("gpu_busy_seconds", "Seconds that the GPU thread has worked.")
        self.wait = self._histogram("job_wait_seconds", "From asking to the begin of the drawing.")
        self.gpu = self._histogram("job_gpu_seconds", "That a drawing held the GPU.")
        self.e2e = self._histogram("job_e2e_seconds", "From asking to the posted picture.")

    def _make_gauges(self) -> None:
        self.waiting = self._gauge("jobs_waiting", "Jobs that wait for the GPU.")
        self.running = self._gauge("jobs_running", "Jobs that are being drawn.")
        self.oldest = self._gauge("queue_oldest_age_seconds", "Since the oldest waiting job was asked for.")
        self.lag = self._gauge(
            "fairness_max_lag_seconds", "GPU-seconds a weight between who waits and had the least, and the most."
        )
        self.loop_lag = self._gauge("event_loop_lag_seconds", "By which the event loop was late when it was last seen.")
        self.silence = self._gauge("gpu_thread_silence_seconds", "Since the GPU thread's last sign of life in a work.")
        self.gateway = self._gauge("gateway_connected", "1 while Discord's gateway is connected.")
        self.loaded = self._gauge("model_loaded", "1 while the model is in memory.")
        self.paused = self._gauge("paused", "1 while nothing is drawn for the owner's sake, by why.", "why")
        self.card = {
            "temperature": self._gauge("card_temperature_celsius", "Of the card; NaN: it does not say."),
            "power": self._gauge("card_power_watts", "That the card draws."),
            "memory_used": self._gauge("card_memory_used_bytes", "Of the card's memory, by all programs."),
            "load": self._gauge("card_load_percent", "Of the last moment in which anything ran on the card."),
        }
        self.build = self._gauge("build_info", "Always 1; which Kiln this is.", "version", "model")

    def built(self, *, model: str) -> None:
        """Say which Kiln this is, with the model's name."""
        self.build.clear()
        self.build.labels(__version__, model).set(1)

    def refused(self, error: Exception) -> None:
        """Somebody did not get what they asked for; the error's kind is the reason."""
        self.rejections.labels(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()).inc()

    def claimed(self, job: Job) -> None:
        """The GPU begins with a job."""
        self.wait.observe(_seconds(job.created_at, job.started_at))

    def ended(self, job: Job, *, now: datetime) -> None:
        """A job is drawn, or is over. `now` is aware UTC."""
        if job.status is JobStatus.DRAWN:
            self.gpu.observe(job.seconds or 0.0)
            return
        self.jobs.labels(job.status.value).inc()
        if job.status in REPLIES and job.channel_id:  # a console's job names no channel, and is no reply
            self.replies.labels(REPLIES[job.status]).inc()
        if job.status is JobStatus.DELIVERED:
            self.e2e.observe(_seconds(job.created_at, now))

    def crashed(self, *, requeued: int, quarantined: int) -> None:
        """The last process died under so many jobs that go on, and so many that do not."""
        self.crashes.inc(requeued + quarantined)
        self.quarantined.inc(quarantined)

    def worked(self, seconds: float) -> None:
        """The GPU thread has worked so long in all."""
        self.busy.inc(max(0.0, seconds - self._worked))
        self._worked = max(self._worked, seconds)

    def measure(self, session: Session, *, now: datetime) -> tuple[float, float, float, float]:
        """Waiting, running, age of the oldest in seconds, lag in GPU-seconds: a few seeks. A reader's thread."""
        waiting, first = session.execute(
            select(func.count(JobRow.id), func.min(JobRow.id)).where(has_status(JobStatus.QUEUED))
        ).one()
        running = session.scalar(select(func.count(JobRow.id)).where(has_status(JobStatus.RUNNING))) or 0
        oldest = session.scalar(select(JobRow.created_at).where(JobRow.id == first))
        spread = select((func.max(AccountRow.vtime) - func.min(AccountRow.vtime)) / 1e6)
        lags = session.scalars(spread.where(AccountRow.waiting > 0).group_by(AccountRow.parent_id)).all()
        return waiting, running, _seconds(oldest, now), max((float(lag) for lag in lags), default=0.0)

    def show(self, measured: tuple[float, float, float, float] | None) -> None:
        """Show what `measure` found; None: the database does not answer, and nothing is known."""
        gauges = (self.waiting, self.running, self.oldest, self.lag)
        for gauge, value in zip(gauges, measured or [math.nan] * len(gauges), strict=True):
            gauge.set(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="kiln", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="kiln", registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, namespace="kiln", registry=self.registry, buckets=SECONDS)


def _seconds(begin: datetime | None, end: datetime | None) -> float:
    """Between two times, 0 at least: the clock may have been set back."""
    return 0.0 if begin is None or end is None else max(0.0, (end - begin).total_seconds())
