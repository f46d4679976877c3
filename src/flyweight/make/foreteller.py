"""What the files of a shape will take on a device, before there is one of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flyweight.anatomy import Shape
from flyweight.make.blocks import load_of
from flyweight.make.budget import Figures
from flyweight.make.device import Device
from flyweight.make.form import Form


class Foreteller:
    """A device, and how long prompts and answers are (`lengths` int [n, 2], in tokens).

    `density` tells the bytes that a file has for each parameter, by its bits.
    """

    def __init__(
        self, device: Device, form: Form, lengths: np.ndarray, density: Mapping[int, float]
    ) -> None:
        self.device, self._source, self._density = device, form.source, density
        self._read, self._written = lengths[:, 0], lengths[:, 1]

    def figures(self, shape: Shape) -> dict[int, Figures]:
        """What a shape is likely to take, by bits."""
        load = load_of(self._source.family, shape, self._source.config)
        return {
            bits: self.device.forecast(
                load, bits, density * load.parameters, self._read, self._written
            )
            for bits, density in self._density.items()
        }


__all__ = ["Foreteller"]
