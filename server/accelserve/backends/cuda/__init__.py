"""What is known of NVIDIA GPUs without using one: driver, devices, libraries, memory and load."""
