"""Detectors as ONNX (fp32, or with int8 weights), sequence models as NIR; `spyolo.runner` runs the ONNX files without torch."""

from spyolo.export.detector import export_onnx

__all__ = ["export_onnx"]
