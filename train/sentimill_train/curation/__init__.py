"""From labelled reviews to a training set: leaks, repeats, label errors, balance."""
