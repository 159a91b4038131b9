"""Learning while in use: a stream of pictures without labels, one loop, its parts."""
