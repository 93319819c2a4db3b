"""Bodies of the console commands that are no part of a floor below: launching, a folder of one's own, the schema of the YAML files."""
