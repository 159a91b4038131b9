"""Training of the small reference models that the package ships, on data that the project makes itself."""
