"""Phantom children: parametric paediatric skeletons seen by a whole-body gamma camera.

A child is drawn in millimetres on a few coronal depth planes (`canvas`, `body`, `axial`, `limbs`,
`organs`) and each plane
is attenuated and blurred for either detector (`projection`). `growth` holds the facts that depend on age,
sex and weight, `motion` what changes between two passes.
"""

from rbs.scans.phantom.child import COLUMNS, ROWS, SPACING_MM, VIEWS, Lesion, Phantom, make_child, make_passes
from rbs.scans.phantom.growth import Child

__all__ = [
    "COLUMNS",
    "ROWS",
    "SPACING_MM",
    "VIEWS",
    "Child",
    "Lesion",
    "Phantom",
    "make_child",
    "make_passes",
]
