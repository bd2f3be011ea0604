"""The file formats that a scoring job reads and writes."""
