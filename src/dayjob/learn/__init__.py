"""From replay to weights: recipes, the fit, and what a version was learned from."""
