"""The command line: click, one file a command family, nothing heavy imported until it is needed."""
