"""The teacher: a Segment Anything Model adapted to bone scans, and the semantic priors it gives."""
