"""``python -m cmgl_cli`` is ``cmgl``."""

from cmgl_cli.cli import main

main()
