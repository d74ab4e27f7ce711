"""One script for each claim; results with machine, versions and commit in `results/`. Never a timed assertion."""
