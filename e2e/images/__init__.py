"""The project's container images: built from docker/ by whatever builder the machine has, cached by content."""
