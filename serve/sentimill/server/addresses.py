"""Network addresses: how they are written, which of them are this machine, and ports in use."""

from __future__ import annotations

import ipaddress

from sentimill.errors import UsageError


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach *host*."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(host: str, port: int) -> str:
    """Return host:port, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_busy(host: str, port: int) -> UsageError:
    """Return the error for a gRPC port that another program uses."""
    return UsageError(
        f"the port {host_port(host, port)} cannot be opened: stop what uses it or choose another"
        " with --port",
        reason="PORT_BUSY",
    )
