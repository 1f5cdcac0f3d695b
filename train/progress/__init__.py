"""What a training reports while it runs: log lines, metrics, figures, samples, profiles."""
