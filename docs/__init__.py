"""The documentation: Markdown pages, and the scripts that write their generated parts and pictures."""
