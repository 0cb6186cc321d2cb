"""Sweeps without a server: the files `wandb sweep` takes, run on this machine by `rbs sweep`."""
