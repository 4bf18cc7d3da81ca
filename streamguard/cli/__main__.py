"""`python -m streamguard.cli`, where the `streamguard` script is not on the path."""

from streamguard.cli.main import main

main(prog_name="streamguard")
