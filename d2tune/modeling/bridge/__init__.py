"""Semantic networks of other libraries as Detectron2 models."""
