"""Who may call: tokens with quotas, TLS certificates, and files that are read again on a change."""
