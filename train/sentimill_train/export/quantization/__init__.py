"""int8 and fp16 versions of a graph."""
