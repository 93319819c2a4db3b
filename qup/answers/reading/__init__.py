"""From an answer as written to the shape that it has; whatever tells answers apart is kept."""
