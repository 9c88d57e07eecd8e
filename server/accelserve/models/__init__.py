"""Models on disk and in memory: manifest, versions, states, placement on devices."""
