"""The model of a project: presets, backbones, heads, weights, and its Detectron2 config."""
