"""Builds an image for real and holds it to its promises; `scripts/image-check` is the way in."""
