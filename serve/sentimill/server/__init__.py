"""The gRPC server: life cycle, services, authentication, TLS, and multiple processes."""
