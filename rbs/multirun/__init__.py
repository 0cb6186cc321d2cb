"""Many trainings, one table: ablation, sweep, benchmark."""
