"""`python -m streamguard.cli`, for environments without the `streamguard` script on the path."""

from streamguard.cli.main import main

main(prog_name="streamguard")
