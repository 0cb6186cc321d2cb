"""How clean frames become bad ones: physical degradations, and presets that draw their levels.

Light passes smoke and a lens (`optics`), falls on a sensor (`camera`), and its picture is scaled
and compressed (`recording`). Each step is a frozen dataclass of physical parameters; a `Recipe`
holds several in that order; `draw` fills one for a preset; `degraded` is the whole for one frame
and one seed. Light adds up in linear light, so every step up to the sensor works there (`light`);
recorders see gamma-encoded values.
"""

from rbs.degradation.optical.camera import Illumination, SensorNoise, Specular
from rbs.degradation.optical.optics import Defocus, Haze, Motion
from rbs.degradation.optical.presets import PRESETS, Preset, degraded, draw
from rbs.degradation.optical.recipe import Recipe
from rbs.degradation.optical.recording import ChromaLoss, Halved, Jpeg, enlarge, halve
from rbs.endoscopy.colour import Degradation, Frame, Stage, to_linear, to_srgb

__all__ = [
    "PRESETS",
    "ChromaLoss",
    "Defocus",
    "Degradation",
    "Frame",
    "Halved",
    "Haze",
    "Illumination",
    "Jpeg",
    "Motion",
    "Preset",
    "Recipe",
    "SensorNoise",
    "Specular",
    "Stage",
    "degraded",
    "draw",
    "enlarge",
    "halve",
    "to_linear",
    "to_srgb",
]
