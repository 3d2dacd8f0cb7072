"""The metrics of a server, for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 3, 4, 6, 8)


@dataclass(slots=True)
class Times:
    """Seconds that an image took in each stage.

    Attributes:
        decode_s: Decoding and resizing.
        queue_s: Waiting for the network.
        forward_s: The forward pass of its batch.
        encode_s: Masks and the answer.
        batch: Images in that pass.
    """

    decode_s: float = 0.0
    queue_s: float = 0.0
    forward_s: float = 0.0
    encode_s: float = 0.0
    batch: int = 1

    def stages(self) -> dict[str, float]:
        """The seconds of each stage by its name."""
        return {
            "decode": self.decode_s,
            "queue": self.queue_s,
            "forward": self.forward_s,
            "encode": self.encode_s,
        }

    def milliseconds(self) -> dict[str, float]:
        """The milliseconds of each stage by its name."""
        return {name: round(1000 * seconds, 2) for name, seconds in self.stages().items()}


class ServingMetrics:
    """Counters and histograms in a registry of their own, so that a process can have several servers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("d2tune_requests", "Answered requests", ("route", "status"), registry=self._registry)
        self._request_s = self._histogram("request_seconds", "Time from the head of a request to its answer", "route")
        self._stages = {
            stage: self._histogram(f"{stage}_seconds", f"Time of the stage {stage} of an image", "model")
            for stage in Times().stages()
        }
        self._batches = self._histogram("batch_images", "Images in a forward pass", "model", buckets=_IMAGES)
        self._passes = self._histogram("pass_seconds", "Time of the forward pass of a batch", "model")
        self._refused = Counter(
            "d2tune_refused", "Images that were not predicted", ("model", "reason"), registry=self._registry
        )
        self._waiting = self._gauge("waiting_images", "Images that are decoded, waiting or being predicted")
        self._ready = self._gauge("model_ready", "Whether the model is ready")

    def _histogram(self, name: str, text: str, label: str, *, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"d2tune_{name}", text, (label,), buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"d2tune_{name}", text, ("model",), registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def image(self, model: str, times: Times) -> None:
        """Count the stages of an image."""
        for stage, seconds in times.stages().items():
            self._stages[stage].labels(model).observe(seconds)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count a forward pass."""
        self._batches.labels(model).observe(images)
        self._passes.labels(model).observe(seconds)

    def refused(self, model: str, reason: str) -> None:
        """Count an image that was not predicted: ``busy`` or ``deadline``."""
        self._refused.labels(model, reason).inc()

    def waits(self, model: str, images: int) -> None:
        """Set the number of images in progress."""
        self._waiting.labels(model).set(images)

    def ready(self, model: str, *, is_ready: bool) -> None:
        """Set whether a model is ready."""
        self._ready.labels(model).set(is_ready)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
