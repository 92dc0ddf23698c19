"""What `doorward serve` and its children do before the first request."""
