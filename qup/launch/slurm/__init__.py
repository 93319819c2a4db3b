"""Running a study on SLURM."""
