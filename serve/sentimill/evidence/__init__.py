"""Evidence for an answer: its sentences, and the nearest of one's own labelled reviews."""
