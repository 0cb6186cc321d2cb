"""Count statistics (to be written)."""
