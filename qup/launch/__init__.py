"""From cells to running stages: planning, execution here or on SLURM, and what is shown of it."""
