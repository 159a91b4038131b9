"""Learning by gradient: encoder x placement x objective, one trainer."""
