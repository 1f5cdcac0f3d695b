"""The pipeline: writes recipes for corpora (`new`), runs all stages one after the other (`stages`), and compares runs (`compare`)."""
