"""The result of a check: what was measured, what is out of bounds, and a table of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from d2tune.export.check.drift import Drift
from d2tune.export.check.measure import Measured
from d2tune.export.formats import Bounds
from d2tune.report.tables import format_table
from d2tune.text import counted

_ROUNDING = 1e-9
_METRIC_NAMES = {"mask_ap": "mask AP", "miou": "mean IoU", "pq": "PQ"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    Attributes:
        measured: What was measured.
        bounds: The bounds of the precision.
    """

    measured: Measured
    bounds: Bounds

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], bounds: Bounds) -> CheckResult:
        """The result of the process of a check."""
        pairs = {name: tuple(plain[name]) for name in ("values", "latency_ms", "size_bytes")}
        fields = {name: plain[name] for name in Measured.__dataclass_fields__}
        measured = Measured(**{**fields, **pairs, "drift": Drift(**plain["drift"])})
        return cls(measured, bounds)

    def to_json(self) -> dict[str, Any]:
        """For ``package.json``."""
        plain = asdict(self.measured)
        pairs = {name: list(plain[name]) for name in ("values", "latency_ms", "size_bytes")}
        return {**plain, **pairs, "bounds": asdict(self.bounds), "out_of_bounds": self.out_of_bounds}

    @property
    def out_of_bounds(self) -> list[str]:
        """What is out of bounds, each in words."""
        return list(self._out_of_bounds())

    def _out_of_bounds(self) -> Iterator[str]:
        drift, bounds = self.measured.drift, self.bounds
        if bounds.same_count and drift.other_counts:
            yield f"another number of instances on {counted(drift.other_counts, 'image')}"
        if bounds.box_px is not None and drift.box_px is not None and drift.box_px > bounds.box_px:
            yield f"boxes differ by {drift.box_px:.3g} px, more than {bounds.box_px:g}"
        if bounds.mask_iou is not None and drift.mask_iou is not None and drift.mask_iou < bounds.mask_iou:
            yield f"mask IoU {drift.mask_iou:.4f}, below {bounds.mask_iou:g}"
        if drift.kept < bounds.kept:
            yield f"{self._lost}, more than {100 * (1 - bounds.kept):.2g} %"
        yield from self._of_metric()
        share = self.measured.size_bytes[1] / self.measured.size_bytes[0]
        if bounds.size is not None and share > bounds.size:
            yield f"{share:.2f} times the size, more than {bounds.size:g}"

    @property
    def _lost(self) -> str:
        """How many instances are lost, or how many pixels have another class."""
        drift = self.measured.drift
        share = f"{100 * (1 - drift.kept):.2g} %"
        if not drift.instances:
            return f"{share} of the pixels have another class"
        lost = f"{round(drift.instances * (1 - drift.kept))} of {drift.instances} instances lost, {share}"
        is_few = 1 / drift.instances > 1 - self.bounds.kept > 0
        return f"{lost} (too few to judge: check with more images)" if is_few else lost

    def _of_metric(self) -> Iterator[str]:
        before, after = self.measured.values
        if before is None:
            return
        if after is None:
            yield f"{self._metric_name} cannot be computed of the export"
            return
        loss = abs(before - after) if self.bounds.same_count else before - after
        if loss > self.bounds.main_metric + _ROUNDING:
            how = "off" if self.bounds.same_count else "lower"
            yield f"{self._metric_name} is {how} by {loss:.2g}, more than {self.bounds.main_metric:g}"

    @property
    def _metric_name(self) -> str:
        metric = self.measured.metric or ""
        return _METRIC_NAMES.get(metric, metric)

    def table(self, *, reference: str, exported: str) -> str:
        """The measurements of both models, side by side.

        Args:
            reference: Name of the model that the export was made of.
            exported: Name of the export.
        """
        measured, drift = self.measured, self.measured.drift
        rows = []
        if drift.instances is not None and drift.other_instances is not None:
            rows.append(
                [
                    "instances" + ("" if measured.min_scores else ", all scores"),
                    str(drift.instances),
                    str(drift.other_instances),
                ]
            )
            rows.append(["kept", "", f"{100 * drift.kept:.1f} %"])
        else:
            rows.append(["pixels of the same class", "", f"{100 * drift.kept:.3f} %"])
        rows += [
            ["largest box difference", "", _number(drift.box_px, "{:.2g} px")],
            ["lowest mask IoU" if drift.instances is not None else "mask IoU", "", _number(drift.mask_iou, "{:.4f}")],
            ["largest score difference", "", _number(drift.score, "{:.2g}")],
        ]
        if measured.metric is not None:
            rows.append([self._metric_name, *(_number(value, "{:.1f}") for value in measured.values)])
        rows.append(["latency", *(f"{value:.0f} ms" for value in measured.latency_ms)])
        rows.append(["size", *(f"{value / 1e6:.1f} MB" for value in measured.size_bytes)])
        kept = [row for row in rows if row[2] != "-"]
        return format_table(kept, header=["", reference, exported], align="lrr")

    @property
    def sentence(self) -> str:
        """What it was checked on, and the verdict."""
        drift, measured = self.measured.drift, self.measured
        generated = drift.images - measured.given_images
        images = [counted(generated, "generated image")]
        if measured.given_images:
            images.insert(0, f"{counted(measured.given_images, 'image')} ({measured.where})")
        verdict = "; ".join(self.out_of_bounds) or "within the bounds"
        return f"Checked on {' and '.join(images)}: {verdict}."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
