"""Phantom children: parametric paediatric skeletons seen by a whole-body gamma camera.

A child is drawn in millimetres on a few coronal depth planes (`canvas`, `body`, `axial`, `limbs`,
`organs`, `disease`) and each plane is attenuated and blurred for either detector (`projection`,
`attenuators`). `growth` holds the facts that depend on age, sex and weight, `motion` what changes
between two passes.
"""

from rbs.synthetic.skeleton.child import COLUMNS, ROWS, SPACING_MM, VIEWS, Phantom, make_child, make_passes
from rbs.synthetic.skeleton.disease import Disease, Lesion
from rbs.synthetic.skeleton.growth import Child

__all__ = [
    "COLUMNS",
    "ROWS",
    "SPACING_MM",
    "VIEWS",
    "Child",
    "Disease",
    "Lesion",
    "Phantom",
    "make_child",
    "make_passes",
]
