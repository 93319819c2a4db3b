"""`python -m qup` is the console command `qup`."""

from qup.cli import main

if __name__ == "__main__":
    main()
