"""A network in the form in which it is deployed."""
