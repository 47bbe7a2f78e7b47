"""`python -m scheduler`: the command line, as the processes of one machine start each other."""

from scheduler.cli import main

if __name__ == "__main__":
    main()
