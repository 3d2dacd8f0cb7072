"""Exported models: the same network as a file of ONNX, TorchScript or OpenVINO, whose results are checked."""
