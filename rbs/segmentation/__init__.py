"""The teacher: a Segment Anything Model adapted to bone scans or frames, and the semantic priors it gives."""
