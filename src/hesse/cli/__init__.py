"""The command line of Hesse."""
