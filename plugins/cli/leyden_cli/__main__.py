"""``python -m leyden_cli``."""

from leyden_cli.main import main

main()
