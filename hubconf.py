"""torch.hub entry points.

    torch.hub.list("OWNER/spyolo")
    detector = torch.hub.load("OWNER/spyolo", "spyv4_lite", pretrained="spyv4_lite_voc")      # or num_classes=..., width=... for a new one
    body = torch.hub.load("OWNER/spyolo", "backbone", "spyv4_lite", out_indices=(2, 3, 4))
    predictor = torch.hub.load("OWNER/spyolo", "predictor", "spyv4_lite_voc", confidence=0.4)

OWNER is whose copy of the repository you trust; a folder and source="local" do too. Weights come from the repository, checked against the
checksums of weights/manifest.json.
"""

from __future__ import annotations

from typing import Any as _Any  # torch.hub lists every callable whose name has no underscore before it

# what is imported when an entry point loads; cv2 by `predictor`
dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2", "safetensors", "yaml", "defusedxml", "tqdm"]


def _detector(name: str, pretrained: _Any, num_classes: int | None, options: dict[str, _Any]) -> _Any:
    import spyolo
    from spyolo.errors import InputError
    from spyolo.features import published

    if not pretrained:
        return spyolo.build_detector(name, 20 if num_classes is None else num_classes, **options)
    if options:
        raise InputError(f"{', '.join(options)}: a weights file says these itself; give them, or pretrained, not both")
    detector, info = spyolo.load(published(name) if pretrained is True else pretrained)
    if info.spec.name != name:
        raise InputError(f"{pretrained}: weights of {info.spec.name}, not of {name}")
    if num_classes not in (None, info.spec.num_classes):
        raise InputError(f"{pretrained}: weights of {info.spec.num_classes} classes, not of {num_classes}; leave num_classes out")
    return detector


def spyv4_lite(pretrained: _Any = None, num_classes: int | None = None, **options: _Any) -> _Any:
    """Our default detector. `pretrained`: a name of the manifest, a path, or True (the most accurate published ones); the file says the
    classes.

    Else untrained, of `num_classes` (20) and `build_detector`'s options.
    """
    return _detector("spyv4_lite", pretrained, num_classes, options)


def spyv4(pretrained: _Any = None, num_classes: int | None = None, **options: _Any) -> _Any:
    """The paper's detector; arguments as for `spyv4_lite`."""
    return _detector("spyv4", pretrained, num_classes, options)


def yolov4_tiny(pretrained: _Any = None, num_classes: int | None = None, **options: _Any) -> _Any:
    """The ANN twin; arguments as for `spyv4_lite`."""
    return _detector("yolov4_tiny", pretrained, num_classes, options)


def backbone(name: str = "spyv4_lite", *args: _Any, **options: _Any) -> _Any:
    """A backbone for other detectors and classifiers; arguments of `spyolo.backbone`."""
    import spyolo

    return spyolo.backbone(name, *args, **options)


def predictor(weights: str, **options: _Any) -> _Any:
    """Boxes on pictures and streams, from weights by name or path; options of `spyolo.Predictor`."""
    import spyolo

    return spyolo.Predictor.load(weights, **options)
