"""Labeled images rendered offline, to try every step from polygons to a trained model without a download."""

from d2tune.samples.render import KINDS, SampleResult, class_names, render_sample

__all__ = ["KINDS", "SampleResult", "class_names", "render_sample"]
