"""Distillation: reviews in, a bundle out. Needs `pip install "sentimill[cpu,train]"`."""

import sentimill as sentimill  # first of all: it keeps libraries from reporting to their makers
