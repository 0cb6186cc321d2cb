"""The teacher, a Segment Anything Model adapted to scans or frames, and its semantic priors."""
