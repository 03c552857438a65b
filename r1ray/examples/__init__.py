"""Plug-ins as a user would write them: they are in none of r1ray's registries; configurations name them by import path."""
