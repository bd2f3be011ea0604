"""Turns labelled reviews into a training set: leaks, repeats, label errors, balance."""
