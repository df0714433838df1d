"""What the commands of `edge-wam` do, as functions: the command line only parses and prints."""
