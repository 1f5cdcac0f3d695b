"""The pipeline: runs all stages one after the other (`stages`), and compares runs (`compare`)."""
