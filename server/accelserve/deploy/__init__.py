"""Services: what is asked for, and who keeps it running; imported by commands only."""
