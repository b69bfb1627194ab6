"""`python -m ddpo` is the console script `ddpo`."""

from ddpo.cli.main import main

if __name__ == "__main__":
    main()
