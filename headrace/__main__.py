"""`python -m headrace`: the command line, where its script is not on the PATH. Knows the entry and nothing else."""

from headrace.cli.main import main

if __name__ == "__main__":
    main()
