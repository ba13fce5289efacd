"""The command line, one file a sub-command with its flags and its action. Enters argparse."""
