"""From the words on the command line to a checked configuration, without importing torch."""
