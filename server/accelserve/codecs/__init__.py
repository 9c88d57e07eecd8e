"""Pure functions between wire forms and messages: no sockets, no models."""
