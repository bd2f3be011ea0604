"""Distillation: reviews in, a bundle out. Needs `pip install "sentimill[cpu,train]"`."""
