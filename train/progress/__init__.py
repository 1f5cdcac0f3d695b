"""What a training says while it runs: metrics, curves, samples, profiles."""
