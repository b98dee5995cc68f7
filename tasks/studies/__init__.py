"""Several trainings, one table: ablations and cross-validation."""
