"""Training: trainer.py is the loop over epochs and steps, step.py a single step.

checkpoint.py manages the checkpoints of a run, weight_file.py reads and writes a single file.
"""
