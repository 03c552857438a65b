"""Plug-ins as a user would write them: no dict of r1ray's names them, a configuration does, by import path."""
