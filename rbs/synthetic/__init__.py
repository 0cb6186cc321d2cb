"""Synthetic children and mucosa: data that belong to nobody."""
