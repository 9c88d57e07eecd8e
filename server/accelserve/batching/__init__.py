"""Which requests ride together, and the driver that runs them."""
