"""Configuration: typed schemas, composition, validation, identity."""
