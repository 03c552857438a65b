"""What a run is made of: named stages, each of one kind (`r1ray.stage_kinds`)."""
