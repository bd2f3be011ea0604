"""What reports share: HTML templates, charts and Markdown tables."""
