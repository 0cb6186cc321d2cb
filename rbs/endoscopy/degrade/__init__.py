"""How clean frames become bad ones: physical degradations, and presets that draw their levels.

Light passes smoke and a lens (`optics`), falls on a sensor (`camera`), and its picture is scaled and
compressed (`recording`). Each step is a frozen dataclass of physical parameters; a `Recipe` holds several in
that order; `draw` fills one for a preset; `degraded` is the whole for one frame and one seed. Light adds up
in linear light, so every step up to the sensor works there (`light`); recorders see gamma-encoded values.
"""

from rbs.endoscopy.degrade.camera import Illumination, SensorNoise, Specular
from rbs.endoscopy.degrade.light import Degradation, Frame, Stage, to_linear, to_srgb
from rbs.endoscopy.degrade.optics import Defocus, Haze, Motion
from rbs.endoscopy.degrade.presets import PRESETS, Preset, degraded, draw
from rbs.endoscopy.degrade.recipe import Recipe
from rbs.endoscopy.degrade.recording import ChromaLoss, Halved, Jpeg, enlarge, halve

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
