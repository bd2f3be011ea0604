"""Evidence for an answer: its sentences, and the nearest of the user's labelled reviews."""
