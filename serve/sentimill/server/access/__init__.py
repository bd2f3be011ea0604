"""Access control: tokens with quotas, TLS certificates, and a watch over their files."""
