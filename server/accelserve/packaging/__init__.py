"""A registered model, and perhaps its script, as a build context for an image; imported by commands only."""
