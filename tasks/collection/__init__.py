"""Many scans: what is to do, done scan by scan with one outcome each, by the same rules in every flow."""
