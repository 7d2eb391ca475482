"""HTTP: the routes and their answers."""
