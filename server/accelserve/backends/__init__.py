"""The accelerator interface and the back ends that implement it."""
