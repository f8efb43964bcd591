"""Data: VOC devkits, augmentation, the drawn sample set, conversion and checks."""

from spyolo.data.classes import VOC_CLASSES, parse_classes, scan_classes
from spyolo.data.dataset import Batch, DetectionDataset, Sample, collate
from spyolo.data.images import image_size, read_image
from spyolo.data.letterbox import Letterbox, letterbox
from spyolo.data.loading import Batches, load_batches
from spyolo.data.placement import AugmentSettings
from spyolo.data.problems import DataWarning
from spyolo.data.sample import make_sample, shuffle_labels
from spyolo.data.sample_drawing import SAMPLE_CLASSES
from spyolo.data.splits import Split, parse_splits
from spyolo.data.voc import VOCSet

__all__ = [
    "SAMPLE_CLASSES",
    "VOC_CLASSES",
    "AugmentSettings",
    "Batch",
    "Batches",
    "DataWarning",
    "DetectionDataset",
    "Letterbox",
    "Sample",
    "Split",
    "VOCSet",
    "collate",
    "image_size",
    "letterbox",
    "load_batches",
    "make_sample",
    "parse_classes",
    "parse_splits",
    "read_image",
    "scan_classes",
    "shuffle_labels",
]
