"""Evaluates a bundle on labelled reviews, on behaviour suites and against baselines."""
