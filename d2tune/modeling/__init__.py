"""The network that a project describes: backbones, heads, weights, and the Detectron2 config behind them."""
