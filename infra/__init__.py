"""Services of one machine, images and Compose files."""
