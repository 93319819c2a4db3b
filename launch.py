"""The door in a checkout: `python launch.py …` is `qup launch …`."""

from qup.commands.launch import main

if __name__ == "__main__":
    main()
