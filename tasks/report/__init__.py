"""One self-contained HTML page about a labelling: `tasks.report.page.render`. Plain data in, text out."""
