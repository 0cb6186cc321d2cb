"""Semantic priors of the teacher in the training of restorers: SPI, SKD, SCM.

They follow Liang et al., "Rapid Bone Scintigraphy Enhancement via Semantic Prior Distillation from
Segment Anything Model" (arXiv 2503.02321) and its forerunner, Zhang et al. (arXiv 2403.16368).
Theirs are not published in full: the formulas here are our own formulation.
"""
