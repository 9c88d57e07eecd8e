"""Models made for an FPGA: how they lie on disk, and what of a network a card takes."""
