"""Many files, scored by a service or by an entry script: what `accelserve score` does; imported by commands only."""
