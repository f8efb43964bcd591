"""spyolo: a Spiking-YOLOv4 detector of liquid-time-constant neurons, trained online with FPTT."""

__version__ = "0.1.0"
