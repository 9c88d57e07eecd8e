"""Bytes in, bytes out: knows protocols and sockets, never back ends."""
