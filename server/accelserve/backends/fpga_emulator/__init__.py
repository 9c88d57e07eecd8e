"""An FPGA that anyone has: block floating point on the CPU, with the card's restrictions and states."""
