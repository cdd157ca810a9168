"""Lets ``python -m edged`` be the ``edged`` command."""

from edged.cli.main import main

main()
