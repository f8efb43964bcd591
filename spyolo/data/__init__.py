"""Data: VOC devkits, augmentation, the drawn sample set, conversion and checks."""

from spyolo.data.dataset import Batch, DetectionDataset, Sample, collate
from spyolo.data.images import image_size, read_image
from spyolo.data.letterbox import Letterbox, letterbox
from spyolo.data.placement import AugmentSettings
from spyolo.data.splits import Split, parse_splits
from spyolo.data.voc import VOC_CLASSES, DataWarning, VOCSet

__all__ = [
    "VOC_CLASSES",
    "AugmentSettings",
    "Batch",
    "DataWarning",
    "DetectionDataset",
    "Letterbox",
    "Sample",
    "Split",
    "VOCSet",
    "collate",
    "image_size",
    "letterbox",
    "parse_splits",
    "read_image",
]
