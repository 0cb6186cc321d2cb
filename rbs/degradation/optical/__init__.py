"""Physical degradations of colour frames, and presets that draw their levels.

Light passes smoke and a lens (`optics`), falls on a sensor (`camera`), and its picture is scaled
and compressed (`recording`). Each step is a frozen dataclass of physical parameters; a `Recipe`
holds several in that order; `Optical` draws the recipe of a preset. All of them are a
`rbs.degradation.Degrader`. Steps up to the sensor work in linear light, where light adds up;
recorders see gamma-encoded values.
"""

from rbs.degradation.optical.camera import Illumination, SensorNoise, Specular
from rbs.degradation.optical.optics import Defocus, Haze, Motion
from rbs.degradation.optical.presets import PRESETS, Optical, Preset
from rbs.degradation.optical.recipe import Recipe, Step
from rbs.degradation.optical.recording import ChromaLoss, Downsampling, Jpeg, enlarge, halve
from rbs.endoscopy.colour import Frame, to_linear, to_srgb

__all__ = [
    "PRESETS",
    "ChromaLoss",
    "Defocus",
    "Downsampling",
    "Frame",
    "Haze",
    "Illumination",
    "Jpeg",
    "Motion",
    "Optical",
    "Preset",
    "Recipe",
    "SensorNoise",
    "Specular",
    "Step",
    "enlarge",
    "halve",
    "to_linear",
    "to_srgb",
]
