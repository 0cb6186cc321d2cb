"""Synthetic mucosa: drawn videos of a colon or stomach, free of anybody's pictures.

A wall is a tube with folds, vessels and residue (`wall`); polyps grow from it, an instrument may
lie before it (`scene`); a camera moves along it (`camera`); two lamps at the tip light it
(`shade`); the camera records a frame (`video`) under the mask of a video processor
(`overlay`); `rbs.data.mucosa` writes frames, masks and a manifest.
"""
