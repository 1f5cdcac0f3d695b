"""What the stages share (configuration, dataset contract, files, tracking, log), and the orchestrator that runs them."""
