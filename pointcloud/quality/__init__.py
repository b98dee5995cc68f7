"""What a person should look at: a scan before the work, doubtful places after it."""
