"""The common parts of reports: HTML templates, charts and Markdown tables."""
