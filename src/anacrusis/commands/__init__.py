"""The commands, a file for each group of them. What is heavy is imported inside, so that --help is quick."""
