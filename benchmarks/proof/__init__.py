"""What `bench.py` and `bench_gpu.py` are made of: contestants, races, records, and their page."""
