"""Spoken words: WAV files, and a mel front end made of torch's own STFT."""

from __future__ import annotations

import functools
import math
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spyolo.errors import InputError
from spyolo.files import one_line


def read_wav(path: Path, rate: int) -> Tensor:
    """16-bit mono PCM as fp32 in [-1, 1), [samples].

    Raises:
        InputError: no WAV file, cut off, or of another rate, width or number of channels.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, found, frames = file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()
            most = path.stat().st_size // max(1, channels * width)  # a header may announce anything
            data = file.readframes(min(frames, most))
    except (OSError, EOFError, wave.Error, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not readable as WAV ({one_line(error) or 'empty file'})") from None
    if found != rate:
        raise InputError(f"{path}: sampled at {found} Hz, {rate} expected; convert it first (ffmpeg -ar {rate})")
    if channels != 1:
        raise InputError(f"{path}: {channels} channels, one expected; convert it first (ffmpeg -ac 1)")
    if width != 2:
        raise InputError(f"{path}: {8 * width} bits a sample, 16 expected; convert it first (ffmpeg -sample_fmt s16)")
    if len(data) != 2 * frames or not frames:
        raise InputError(f"{path}: cut off: {frames} samples are announced, {len(data) // 2} are there")
    return torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)


@functools.cache
def mel_filters(rate: int, window: int, bands: int) -> Tensor:
    """Triangles, equally wide on the mel scale (2595 log10(1 + f / 700)) from 0 to rate / 2, [bands, window / 2 + 1]."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.clamp(torch.minimum(rising, falling), min=0).float()


def log_mel(sound: Tensor, rate: int, *, bands: int = 40, window: int = 256, hop: int = 80) -> Tensor:
    """Logarithmic mel spectrogram, each band with mean 0 and deviation 1 over the sound: the loudness and colour of microphones go.

    Args:
        sound: [samples]; shorter than a window is filled with silence.
        window, hop: in samples; 256 and 80 at 8 kHz are 32 and 10 ms.

    Returns:
        fp32 [steps, bands].
    """
    if len(sound) < window:
        sound = torch.nn.functional.pad(sound, (0, window - len(sound)))
    spectrum = torch.stft(sound, window, hop, window=torch.hann_window(window), center=False, return_complex=True).abs().square()
    mel = torch.log(mel_filters(rate, window, bands) @ spectrum + 1e-6).T
    return (mel - mel.mean(0)) / (mel.std(0, correction=0) + 1e-3)
