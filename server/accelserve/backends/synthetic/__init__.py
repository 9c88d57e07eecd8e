"""Models made of arithmetic and delays, for tests and drills."""
