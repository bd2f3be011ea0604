"""Clients of the services that host large models."""
