"""Problems and training examples that r1ray makes itself, from a seed. `traces` is what the built-in model was trained on."""
