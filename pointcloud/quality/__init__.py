"""What the user should look at: scans before the work, doubtful places after it."""
