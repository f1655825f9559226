"""Counters and histograms for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from redraft.core.decisions import Decisions, Refusal
from redraft.core.events import News
from redraft.core.reads import Readings
from redraft.core.results import Generation
from redraft.server.jobs import Job
from redraft.server.scheduler import Scheduler

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_SHORT = (0.005, 0.01, 0.02)
_TOKENS = (0.5, 1, 2, 3, 5, 8, 12, 16, 24, 32)


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "redraft_requests", "Replies by how they ended.", ["model", "finish_reason"], registry=registry
        )
        self._refused = Counter("redraft_refused", "Requests refused, by status.", ["status"], registry=registry)
        self._queued = Gauge("redraft_queue", "Replies that are prepared, wait or run.", registry=registry)
        self._running = Gauge("redraft_running", "Replies that take part in the steps.", registry=registry)
        self._first = Histogram(
            "redraft_time_to_first_canvas_seconds", "From the request to its first commit.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._total = Histogram("redraft_request_seconds", "A whole reply.", buckets=_SECONDS, registry=registry)
        self._per_forward = Histogram(
            "redraft_tokens_per_forward", "Generated tokens a denoising step.", buckets=_TOKENS, registry=registry
        )
        self._canvases = Counter("redraft_canvases", "Canvases committed.", registry=registry)
        self._steps = Counter("redraft_denoising_steps", "Denoising steps.", registry=registry)
        self._prompt = Counter("redraft_prompt_tokens", "Tokens of prompts.", ["model"], registry=registry)
        self._cached = Counter(
            "redraft_cached_tokens", "Those of them that were encoded before.", ["model"], registry=registry
        )
        self._tokens = Counter("redraft_generated_tokens", "Tokens that users got.", ["model"], registry=registry)

        self._answers = Counter(
            "redraft_questions", "Questions by their type and what they got.", ["type", "result"], registry=registry
        )
        self._reread = Counter("redraft_questions_reread", "Questions that were looked at again.", registry=registry)
        self._reads = Counter("redraft_reads", "Prompts that were read, by the mode.", ["reader"], registry=registry)
        self._decided = Histogram(
            "redraft_decisions_seconds", "All questions about a state.", buckets=_SHORT + _SECONDS, registry=registry
        )

    def decided(self, model: str, decisions: Decisions) -> None:
        """Counts the answers to the questions about a state."""
        stats = decisions.stats
        self._requests.labels(model, "stop").inc()
        for answer in decisions.answers:
            if isinstance(answer, Refusal):
                kind = "none" if answer.question is None else answer.question.kind
                self._answers.labels(kind, "abstained" if answer.code == "abstained" else "refused").inc()
            else:
                self._answers.labels(answer.question.kind, "answered").inc()
        self._reread.inc(stats.reread)
        self._reads.labels("canvas").inc(stats.canvas_reads)
        self._reads.labels("causal").inc(stats.causal_reads)
        self._prompt.labels(model).inc(stats.prompt_tokens)
        self._cached.labels(model).inc(stats.cached_tokens)
        self._decided.observe(stats.total_s)

    def seen(self, job: Job, event: News) -> None:
        """Counts a result."""
        if isinstance(event, Readings) and event.finish_reason != "stop":
            # One such ends the whole request.
            self._requests.labels(job.model, "timeout" if job.late else event.finish_reason).inc()
        if not isinstance(event, Generation):
            return
        stats = event.stats
        self._requests.labels(job.model, "timeout" if job.late else event.finish_reason).inc()
        self._canvases.inc(stats.canvases)
        self._steps.inc(stats.denoising_steps)
        self._prompt.labels(job.model).inc(stats.prompt_tokens)
        self._cached.labels(job.model).inc(stats.cached_tokens)
        self._tokens.labels(job.model).inc(stats.generated_tokens)
        self._total.observe(stats.total_s)
        if event.finish_reason not in ("cancelled", "error"):
            self._first.observe(stats.time_to_first_canvas_s)
            self._per_forward.observe(stats.tokens_per_forward)

    def refused(self, status: int) -> None:
        """Counts an answer that is an error."""
        self._refused.labels(str(status)).inc()

    def text(self, scheduler: Scheduler) -> bytes:
        """The page."""
        self._queued.set(scheduler.reserved)
        self._running.set(scheduler.running)
        return generate_latest(self._registry)
