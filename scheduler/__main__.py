"""`python -m scheduler`: the command line, as `genmill up` starts its processes."""

from scheduler.cli import main

if __name__ == "__main__":
    main()
