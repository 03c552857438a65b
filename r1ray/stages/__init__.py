"""What a run is made of: named stages, each of one kind (`kinds`)."""
