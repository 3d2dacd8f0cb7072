"""Labelled images rendered offline, to try the whole way from polygons to a trained model without any download."""

from d2tune.samples.render import KINDS, SampleResult, class_names, render_sample

__all__ = ["KINDS", "SampleResult", "class_names", "render_sample"]
