"""Plans: which segments each step of a training reads."""
