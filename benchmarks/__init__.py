"""What the core costs, beside a dense solve and the least that any code must do: `python -m benchmarks`."""
