"""Other model servers, measured beside ours.

cases         what is asked, and who is measured with it
catalog       who can be asked, and how
environments  a virtual environment for each peer, and why one cannot be had
payloads      models, request bodies, right answers
servers/      one file per peer, run by its own environment; peer_model.py is what they share
requirements/ all packages of each environment, with their versions
"""
