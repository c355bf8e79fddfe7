"""Export of trained networks, and their use without this project."""
