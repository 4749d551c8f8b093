"""Source images in the target's style: FDA, or images translated beforehand (METHOD §8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssada_core.data.compressed import decode_compressed
from ssada_core.data.image_files import images_by_stem, read_bytes
from ssada_core.data.resized import resize_image
from ssada_core.data.samples import Array, Samples
from ssada_core.errors import DataError


def fourier_style(source: Array, target: Array, beta: float) -> Array:
    """Fourier domain adaptation: the target's low-frequency amplitude, the source's phase (arXiv 2004.05498).

    In each channel's FFT the amplitude within a centred square of half-side ``⌊β·min(H,W)⌋`` is replaced.

    Args:
        source: uint8 H×W×3, whole, before cropping and normalising.
        target: uint8 of any size ×3; it is resized to the source's.
        beta: in [0, 0.5).

    Returns:
        uint8 H×W×3.
    """
    height, width = source.shape[:2]
    half = min(int(beta * min(height, width)), (min(height, width) - 1) // 2)
    # Images are real: the half spectrum has no negative columns, and row -n is row H-n.
    rows = np.arange(-half, half + 1) % height
    low = np.ix_(rows, np.arange(half + 1))
    spectrum = np.fft.rfft2(source, axes=(0, 1))
    theirs = np.abs(np.fft.rfft2(resize_image(target, (height, width)), axes=(0, 1))[low])
    spectrum[low] = theirs * np.exp(1j * np.angle(spectrum[low]))
    styled = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.clip(np.rint(styled), 0, 255).astype(np.uint8)


class TranslatedSamples:
    """A labelled collection whose images come from a folder of translated ones, found by the frame's name."""

    def __init__(self, samples: Samples, folder: Path) -> None:
        """Find the image of every frame: the file with the stem of its name.

        Raises:
            DataError: if the folder cannot be read or lacks a frame.
        """
        known = images_by_stem(folder)
        stems = [Path(samples.name(index)).stem for index in range(len(samples))]
        missing = [stem for stem in stems if stem not in known]
        if missing:
            raise DataError(
                f"{folder} has no image '{missing[0]}' ({len(missing)} of {len(stems)} missing): translate them all"
            )
        self._samples = samples
        self._files = [known[stem] for stem in stems]

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._samples.name(index)

    def image(self, index: int) -> Array:
        """The translated image, at the size of the frame's label."""
        image = decode_compressed(read_bytes(self._files[index]))
        label = self.label(index)
        return image if label is None else resize_image(image, (label.shape[0], label.shape[1]))

    def label(self, index: int) -> Array | None:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._samples.label(index)
