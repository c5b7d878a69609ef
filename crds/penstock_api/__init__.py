"""The kinds of penstock.dev: models, validation, conditions. Computation only, no I/O."""
