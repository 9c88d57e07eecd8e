"""SavedModels through TensorFlow, which `backend` and `graph` import, and only to load."""
