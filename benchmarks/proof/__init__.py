"""The proof: `run.py` and `run_gpu.py` race the student against a large model and report on it."""
