"""Several server processes behind one port: the supervisor and its workers."""
