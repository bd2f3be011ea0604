"""The bundle: the model folder that training writes and serving reads."""
