"""What every HTML report shares: templates and charts."""
